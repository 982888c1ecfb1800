"""``zephyr doctor``: is everything set up so that nothing is lost?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from bridge.doctor.examine import examine
from bridge.doctor.finding import Finding, Severity, exit_code
from bridge.mapping import load_mapping
from bridge.settings import load_settings
from zephyr.commands.bridge import NatsUrl, PostgresDsn
from zephyr.console import CommandError, output, run
from zephyr.files import write_json

_STYLES = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.UNSAFE: "bold yellow",
    Severity.BROKEN: "bold red",
    Severity.AWAY: "bold red",
}
_INDENT = 8


def doctor(
    nats_url: NatsUrl = None,
    postgres_dsn: PostgresDsn = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="Mapping file; the one for notes and users by default.", envvar="ZEPHYR_MAPPING"),
    ] = None,
    app_nats_url: Annotated[
        str | None,
        typer.Option(
            help="NATS server with an application's credentials, to learn whether it may publish rows;"
            " without it, a connection without credentials tries.",
            envvar="ZEPHYR_DOCTOR_NATS_URL",
        ),
    ] = None,
    nats_system_url: Annotated[
        str | None,
        typer.Option(
            help="NATS server with credentials of the system account, which alone is told the sync_interval.",
            envvar="ZEPHYR_DOCTOR_NATS_SYSTEM_URL",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is fine, too.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all findings to this file.", metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """Examine Postgres, NATS and the settings between them, and name what is unsafe with its mend.

    It changes nothing. Run it with the bridge's own environment, since it judges the bridge's settings too.

    Exit codes: 0 nothing is unsafe or broken, 1 something is unsafe, 4 something is broken, 3 a server is
    away (what the other tells is shown all the same).
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        folder = json_file.absolute().parent
        raise CommandError(f"there is no folder {folder} for --json", "make it first", exit_code=2)
    settings = load_settings(nats_url=nats_url, postgres_dsn=postgres_dsn, mapping=mapping)
    findings = run(examine(settings, load_mapping(settings.mapping), app_nats_url, nats_system_url))
    code = exit_code(findings)
    if json_file is not None:
        write_json(json_file, {"exit_code": code, "findings": [each.as_json() for each in findings]})
    _show(findings, verbose)
    raise typer.Exit(code)


def _show(findings: list[Finding], verbose: bool) -> None:
    # The worst first; within a severity in the order of the examination.
    for finding in sorted(findings, key=lambda each: -each.severity):
        if finding.severity is Severity.OK and not verbose:
            continue
        head = Text.assemble(finding.found, (f"  ({finding.check})", "dim"))
        _show_block(f"{finding.severity!s:<{_INDENT}}", _STYLES[finding.severity], head)
        if finding.why:
            _show_block(" " * _INDENT, "", Text(finding.why, style="dim"))
        if finding.mend:
            # In one line, however long: statements are for copying.
            output.print(Text.assemble(" " * _INDENT, ("→ ", "yellow"), finding.mend))
    output.print(_summary(findings))


def _show_block(label: str, style: str, text: Text) -> None:
    """Text beside a label; on a terminal its lines are indented, elsewhere it is one line."""
    lines = text.wrap(output, max(40, output.width - _INDENT)) if output.is_terminal else [text]
    for number, line in enumerate(lines):
        line.rstrip()
        output.print(Text.assemble((label if number == 0 else " " * _INDENT, style), line))


def _summary(findings: list[Finding]) -> Text:
    text = Text()
    for severity in reversed(Severity):
        count = sum(finding.severity is severity for finding in findings)
        if count:
            text.append(" · " if text else "")
            words = f"{count} {severity}" if severity is not Severity.NOTE or count == 1 else f"{count} notes"
            text.append(words, style=_STYLES[severity])
    return text
