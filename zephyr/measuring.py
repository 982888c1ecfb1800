"""What every ``zephyr bench NAME`` does: options of the same names, and the end that a result has."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zephyr.console import EXIT_INTERRUPTED, CommandError, console, output, run
from zephyr.files import write_json
from zephyr.signals import on_stop

if TYPE_CHECKING:
    from bench.result import Result

Say = Callable[[str], None]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the result here.", metavar="FILE", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Keep the servers' folders and logs below this folder; a temporary one when left out.",
        metavar="FOLDER",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, max=100, help="How often each figure is taken.")]


def measure(
    work: Callable[[Path, Say], Coroutine[Any, Any, Result]], json: Path | None, data: Path | None
) -> None:
    """Runs ``work`` in ``data`` or a temporary folder, writes and shows what it found.

    Raises:
        CommandError: what was stored is not what was written, or an option is wrong.
    """
    from bench.table import table_of

    if sys.platform != "linux":
        raise CommandError("what processes cost is read from /proc", "measure on Linux", 2)
    if json is not None and not json.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {json.absolute().parent} for --json", "make it first", 2)
    if data is not None and data.exists() and any(data.iterdir()):
        raise CommandError(f"the folder {data} is not empty", "name another with --data", 2)
    try:
        result = run(_run(work, data.absolute() if data is not None else None))
    except asyncio.CancelledError:
        console.print("interrupted: nothing is measured")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json is not None:
        write_json(json, result.to_json())
    output.print(table_of(result))
    if not result.holds:
        raise CommandError("what was counted is not exactly what was written", "see `events` in the result")


async def _run(work: Callable[[Path, Say], Coroutine[Any, Any, Result]], data: Path | None) -> Result:
    task = asyncio.current_task()
    assert task is not None
    on_stop(task.cancel)

    def say(text: str) -> None:
        console.print(text, markup=False)

    if data is not None:
        return await work(data, say)
    with tempfile.TemporaryDirectory(prefix="zephyr-bench-") as folder:
        return await work(Path(folder), say)
