"""How far a file of events is, as a bar on a terminal; nothing where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class PublishBar:
    """``total_bytes`` is the size of the file; None, so that the bar only moves, when that is not known."""

    def __init__(self, console: Console, total_bytes: int | None) -> None:
        self._progress = Progress(
            TextColumn("publishing"),
            BarColumn(),
            TextColumn("{task.fields[stored]:,} stored, {task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total_bytes, stored=0, rate=0.0)

    def __enter__(self) -> PublishBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, read_bytes: int, stored: int, rate: float) -> None:
        """So many bytes were read, so many events are stored."""
        self._progress.update(self._task, completed=read_bytes, stored=stored, rate=rate)
