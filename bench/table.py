"""A result as a table for people."""

from __future__ import annotations

import statistics

from rich.table import Table

from bench.result import Case, Result

_NAMED = ("case", "rows", "rows_per_transaction", "transactions_per_second", "achieved_per_second", "since")


def table_of(result: Result) -> Table:
    """One line a case."""
    table = Table(title=f"zephyr bench {result.bench}")
    table.add_column("case")
    for title in ("value", "ceiling", "ratio (min-max)", "CPU s", "peak MiB", "p50 / p90 / p99 / max ms"):
        table.add_column(title, justify="right")
    table.add_column("holds")
    for case in result.cases:
        table.add_row(*_cells(case))
    return table


def _cells(case: Case) -> list[str]:
    named = [(name, case.parameters[name]) for name in _NAMED if name in case.parameters]
    ratio = ""
    if case.ratios:
        ratio = f"{statistics.median(case.ratios):.2f} ({min(case.ratios):.2f}-{max(case.ratios):.2f})"
    return [
        ", ".join(str(value) if name == "case" else f"{name}={value}" for name, value in named),
        f"{case.value:,.1f} {case.unit}",
        "" if case.ceiling is None else f"{case.ceiling:,.0f}",
        ratio,
        "\n".join(f"{name} {seconds:.2f}" for name, seconds in case.cpu_seconds.items()),
        "\n".join(f"{name} {size / 2**20:.0f}" for name, size in case.peak_memory_bytes.items()),
        " / ".join(f"{value:.1f}" for value in case.latency_ms.values()),
        "yes" if case.holds else "NO",
    ]
