"""A result as a table for people: one row a case, as narrow as the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from bench.result import Case, Result

_NAMED = {
    "rows": "{:,} rows",
    "rows_per_transaction": "{:,} a transaction",
    "transactions_per_second": "{:,} transactions/s",
    "since": "since {}",
    "subscriptions": "{:,} that do not match",
    "streams": "{:,} streams",
    "beside": "beside a {}",
    "stored_events": "{:,} stored events",
    "subscribers": "{:,} subscribers",
    "client": "client: {}",
}


def table_of(result: Result) -> Table:
    """What was measured, and what was found."""
    table = Table("case", "found", title=f"zephyr bench {result.bench}", box=box.SIMPLE_HEAD)
    for case in result.cases:
        table.add_row(_case(case), _found(case))
    return table


def _case(case: Case) -> str:
    named = [text.format(case.parameters[name]) for name, text in _NAMED.items() if name in case.parameters]
    return "\n".join([f"[bold]{case.parameters.get('case', '')}[/bold]", *named])


def _found(case: Case) -> str:
    lines = [f"[bold]{case.value:,.1f} {case.unit}[/bold]"]
    if case.ceiling is not None and case.ratios:
        low, high = min(case.ratios), max(case.ratios)
        ceiling = f"{case.ceiling:,.0f}" if case.ceiling >= 1000 else f"{case.ceiling:,.1f}"
        lines.append(f"ceiling {ceiling}, ratio {case.ratio:.2f} ({low:.2f} to {high:.2f})")
    if case.latency_ms:
        lines.append("ms: " + ", ".join(f"{name} {value:.1f}" for name, value in case.latency_ms.items()))
    if case.parameters.get("rate_reached") is False:
        lines.append(
            f"[yellow]the rate was not reached: {case.parameters['achieved_per_second']:,.0f}/s[/yellow]"
        )
    lines.append("CPU s: " + ", ".join(f"{name} {spent:.1f}" for name, spent in case.cpu_seconds.items()))
    peaks = (f"{name} {size / 2**20:.0f}" for name, size in case.peak_memory_bytes.items())
    lines.append("peak MiB: " + ", ".join(peaks))
    if not case.holds:
        lines.append("[bold red]what was counted is not what was written[/bold red]")
    return "\n".join(lines)
