"""``zephyr verify``: proves what the project says of itself, on servers of its own."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from zephyr.console import EXIT_INTERRUPTED, CommandError, console, output, run
from zephyr.files import write_json
from zephyr.signals import on_stop
from zephyr.stack.lock import DataLock
from zephyr.stack.stack import make_data_folder
from zephyr.verify.field import Field
from zephyr.verify.run import Result, run_faults

app = typer.Typer(no_args_is_help=True, help="Prove what is promised, on servers of its own.")
_FRAME_S = 0.25


@app.callback()
def verify() -> None:
    """Prove what is promised, on servers of its own."""


@app.command("faults")
def verify_faults(
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="How long faults happen.", metavar="N")
    ] = 60.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Draws load, faults and their moments.", metavar="S")
    ] = 1,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result here.", metavar="FILE", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Work in this folder, which must be new or empty, and keep it; a temporary one when left out.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Kill, cut off and freeze bridge and servers under load, and prove that every commit is in the stream once.

    What was committed is read from Postgres' WAL by a decoder of its own, and held against the stream,
    event by event, and against the tables. Exit code 0 says that nothing is lost, repeated, out of order
    or altered; 1 that something is.
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {json.absolute().parent} for --json", "make it first", 2)
    if data is not None and data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise CommandError(f"{data} is not an empty folder", "name a new one with --data", 2)
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # Connections end all the time here, and that is the point.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    try:
        result = run(_faults(seconds, seed, data))
    except asyncio.CancelledError:
        console.print("interrupted: nothing is proven")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json is not None:
        write_json(json, result.to_json())
    if result.stopped_by:
        console.print(f"the faults ended early: {result.stopped_by}", markup=False)
    for remark in result.verdict.remarks:
        console.print(remark, markup=False)
    output.print(result.line)
    if not result.holds:
        raise typer.Exit(1)


async def _faults(seconds: float, seed: int, data: Path | None) -> Result:
    task = asyncio.current_task()
    assert task is not None
    on_stop(task.cancel)
    with ExitStack() as closing:
        folder = data or Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="zephyr-verify-")))
        make_data_folder(folder.absolute())
        closing.enter_context(DataLock(folder.absolute())).sign()
        progress = closing.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("kills {task.fields[kills]} · commits {task.fields[commits]}"),
                console=console,
                transient=True,
            )
        )
        return await _shown(progress, folder.absolute(), seconds, seed)


async def _shown(progress: Progress, folder: Path, seconds: float, seed: int) -> Result:
    bar = progress.add_task("starting", total=None, kills=0, commits=0)
    fields: list[Field] = []

    def on_fault(name: str, field: Field) -> None:
        if not fields:
            progress.reset(bar, total=seconds)
            fields.append(field)
        progress.update(bar, description=name.replace("_", " "))

    running = asyncio.ensure_future(run_faults(folder, seconds, seed, on_fault))
    try:
        while not running.done():
            await asyncio.wait((running,), timeout=_FRAME_S)
            if fields:
                elapsed = min(progress.tasks[0].elapsed or 0.0, seconds)
                kills, commits = fields[0].kills, fields[0].load.commits
                progress.update(bar, completed=elapsed, kills=kills, commits=commits)
    finally:
        running.cancel()
        await asyncio.wait((running,))
    return running.result()
