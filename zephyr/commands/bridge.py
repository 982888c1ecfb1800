"""``zephyr bridge``: the bridge from Postgres to the stream."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from bridge.epoch import start_new_epoch
from bridge.errors import MappingMismatch, SourceUnfit
from bridge.mapping import load_mapping
from bridge.run import Bridge
from bridge.settings import BridgeSettings, load_settings
from bridge.term import Term
from zephyr.commands import dead_letters
from zephyr.commands.backfill import backfill
from zephyr.commands.bridge_status import show_status, watch_status
from zephyr.console import CommandError, console, run
from zephyr.copy_bar import CopyBar
from zephyr.files import write_json
from zephyr.logs import configure_logs
from zephyr.signals import on_stop

app = typer.Typer(no_args_is_help=True, help="Turn Postgres' committed changes into the stream.")
app.add_typer(dead_letters.app, name="deadletters")
app.command()(backfill)

NatsUrl = Annotated[str | None, typer.Option(help="NATS server with JetStream.", envvar="ZEPHYR_NATS_URL")]
PostgresDsn = Annotated[
    str | None,
    typer.Option(
        help="Postgres with wal_level=logical; a role with REPLICATION.", envvar="ZEPHYR_POSTGRES_DSN"
    ),
]


@app.command("run")
def run_bridge(
    nats_url: NatsUrl = None,
    postgres_dsn: PostgresDsn = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="Mapping file; the one for notes and users by default.", envvar="ZEPHYR_MAPPING"),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write slot, term and process id to this file while changes stream.")
    ] = None,
    standby: Annotated[
        bool | None,
        typer.Option(
            "--standby/--no-standby",
            help="While another bridge leads, wait and take over from it, instead of ending with code 5.",
            envvar="ZEPHYR_BRIDGE_STANDBY",
            show_default="--no-standby",
        ),
    ] = None,
) -> None:
    """Stream changes until SIGTERM. Goes on by itself when Postgres or NATS went away and came back.

    The first run of an epoch copies the mapped tables into the stream, and streams from there on
    (ZEPHYR_SNAPSHOT=never leaves that out).
    """
    configure_logs()
    settings = load_settings(nats_url=nats_url, postgres_dsn=postgres_dsn, mapping=mapping, standby=standby)
    _spare_the_collector()
    run(_run(settings, ready_file))


@app.command("new-epoch")
def new_epoch(
    nats_url: NatsUrl = None,
    postgres_dsn: PostgresDsn = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Begin a new history in the stream, with the tables as they are at the next run.

    Needed when the bridge says that what the stream holds can no longer be continued. Its messages
    stay until the stream's limits take them; every subscriber is told to start anew. The next run
    copies the tables, and says of what vanished in between that it is deleted. The slot is made anew.
    """
    settings = load_settings(nats_url=nats_url, postgres_dsn=postgres_dsn)
    if not yes and not typer.confirm(
        f"Begin a new epoch in the stream {settings.stream!r}, and drop the slot {settings.slot!r}?",
        err=True,
    ):
        raise CommandError("nothing was changed", exit_code=1)
    run(start_new_epoch(settings))
    console.print("the next [bold]zephyr bridge run[/bold] begins the new epoch with a copy of the tables")


@app.command("status")
def status(
    nats_url: NatsUrl = None,
    postgres_dsn: PostgresDsn = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all of it to this file as well.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, once a second, until Ctrl-C.")] = False,
) -> None:
    """Say who leads, how far it lags, what is in flight and what is held back.

    Exits with 0 when a bridge leads and streams, 1 when none does, 3 when a server cannot be reached.
    """
    settings = load_settings(nats_url=nats_url, postgres_dsn=postgres_dsn)
    if watch:
        run(watch_status(settings, json_file))
    elif (code := run(show_status(settings, json_file))) != 0:
        raise typer.Exit(code)


_AT_A_START = (
    "  - ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE=dead-letter does not help at a start: it goes by what fitted before the table"
    " was altered, and a bridge that starts has seen none of that; mend the above first"
)


def _spare_the_collector() -> None:
    """Rows make many objects and no cycles: what stands after the start is never garbage, and a
    collection after each 700 new objects would cost a tenth of the speed."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _run(settings: BridgeSettings, ready_file: Path | None) -> None:
    def streams(term: Term | None) -> None:
        if ready_file is None:
            return
        if term is None:
            ready_file.unlink(missing_ok=True)
        else:
            write_json(ready_file, {"slot": term.slot, "term": term.term, "pid": os.getpid()})

    bar = CopyBar(console)
    bridge = asyncio.ensure_future(Bridge(settings, load_mapping(settings.mapping), streams, bar.show).run())
    on_stop(bridge.cancel)
    try:
        await bridge
    except MappingMismatch as exc:
        if settings.on_schema_change == "pause":
            raise
        # Whoever restarts a bridge that went on without the altered table wonders why it stops now.
        raise SourceUnfit(f"{exc.message}\n{_AT_A_START}") from exc
    except asyncio.CancelledError:
        # Whatever was under way is read back from the stream by the next term.
        if not bridge.cancelled():
            raise
    finally:
        bar.stop()
