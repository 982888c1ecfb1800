"""``zephyr migrate``: brings the database to the newest revision of the schema."""

from __future__ import annotations

from typing import Annotated

import typer

from zephyr.console import CommandError, console
from zephyr.migrations import runner


def migrate(
    postgres_dsn: Annotated[
        str,
        typer.Option(
            "--postgres-dsn",
            envvar="ZEPHYR_POSTGRES_DSN",
            help="The database, as a URL or as key=value pairs.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Brings the database to the newest revision of the schema."""
    if not postgres_dsn.strip():
        raise CommandError(
            "no database is named",
            "set ZEPHYR_POSTGRES_DSN or --postgres-dsn, for example postgresql://user@host:5432/database",
            exit_code=2,
        )
    applied = runner.migrate(postgres_dsn, on_step=lambda step: console.print(f"applying {step}"))
    if applied:
        console.print(f"migrated: {len(applied)} applied, now at revision {applied[-1]}")
    else:
        console.print("already at the newest revision")
