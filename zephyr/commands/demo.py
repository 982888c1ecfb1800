"""``zephyr demo``: replays a git history through the whole system and proves that nothing was lost."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer

from zephyr.console import EXIT_INTERRUPTED, CommandError, console, output, run
from zephyr.demo.history import choose_history
from zephyr.demo.result import Result
from zephyr.demo.run import Addresses, Options, run_demo
from zephyr.demo.view import View
from zephyr.files import write_json
from zephyr.signals import on_stop
from zephyr.stack import running_stack


def demo(
    repo: Annotated[
        Path | None,
        typer.Option(
            "--repo",
            help="The git repository to replay; this project's own when left out.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    commits: Annotated[
        int | None,
        typer.Option(
            "--commits", min=1, help="Replay the first N commits only.", metavar="N", show_default=False
        ),
    ] = None,
    subscribers: Annotated[
        int, typer.Option("--subscribers", min=1, max=1000, help="How many subscribers listen.", metavar="S")
    ] = 4,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result here.", metavar="FILE", show_default=False),
    ] = None,
    ahead: Annotated[
        int,
        typer.Option(
            "--ahead",
            min=0,
            help="How many commits may be written that the slowest subscriber has not got yet. It bounds"
            " the load: latencies are those of a system that is busy and not flooded.",
            metavar="N",
        ),
    ] = 100,
    stall: Annotated[
        float,
        typer.Option("--stall", min=1, help="End when nothing moves for so many seconds.", metavar="SECONDS"),
    ] = 60.0,
    stack: Annotated[
        Path | None,
        typer.Option(
            "--stack",
            help="Run on the stack that `zephyr up --json FILE` started, instead of one of its own.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Replays a git repository's history as a team's notes, and proves that every event arrived.

    Each commit is one transaction in Postgres. At the end the stream is held against the tables, the
    cache against the stream, and what each subscriber got against what was written. Exit code 0 says
    that all of it holds, 1 that it does not.
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {json.absolute().parent} for --json", "make it first", 2)
    # The replay says itself that Postgres went away, and mends it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        result = run(_demo(repo, commits, Options(subscribers, ahead, stall), stack))
    except asyncio.CancelledError:
        console.print("interrupted: nothing is proven")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json is not None:
        write_json(json, result.to_json())
    output.print(result.line)
    if not result.holds:
        raise typer.Exit(1)


async def _demo(repo: Path | None, commits: int | None, options: Options, stack: Path | None) -> Result:
    task = asyncio.current_task()
    assert task is not None
    on_stop(task.cancel)
    history = await choose_history(repo, commits)
    if history.notice:
        console.print(history.notice, markup=False)
    view = View(console)
    stream = os.environ.get("ZEPHYR_STREAM", "ZEPHYR")
    if stack is not None:
        result = await run_demo(_read_addresses(stack, stream), history, options, view)
    else:
        with tempfile.TemporaryDirectory(prefix="zephyr-demo-") as folder:
            console.print("starting NATS, Postgres, Valkey, bridge and server")
            async with running_stack(Path(folder), listen="127.0.0.1:0") as up:
                addresses = Addresses(up.grpc, up.nats, up.postgres, up.redis, stream)
                result = await run_demo(addresses, history, options, view)
    view.summary(history, result)
    return result


def _read_addresses(file: Path, stream: str) -> Addresses:
    """The addresses that ``zephyr up --json`` wrote.

    Raises:
        CommandError: there is no such file, or it is another one.
    """
    mend = "pass the file of `zephyr up --json FILE`, while it runs"
    try:
        held = orjson.loads(file.read_bytes())
        return Addresses(held["grpc"], held["nats"], held["postgres"], held["redis"], stream)
    except OSError as exc:
        raise CommandError(f"{file} cannot be read: {exc.strerror}", mend, 2) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise CommandError(f"{file} holds no addresses of a stack", mend, 2) from exc
