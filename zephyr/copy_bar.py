"""How far a copy of tables is, as a bar on a terminal; nothing where there is none: the log says it there."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bridge.progress import CopyProgress


class CopyBar:
    """A bar that comes with the first progress and stays, full, when the copy is over."""

    def __init__(self, console: Console, what: str = "copying") -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} rows, {task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._what = what
        self._task: TaskID | None = None

    def show(self, progress: CopyProgress) -> None:
        """Shows the progress; ends the bar when the copy is over."""
        if self._task is None:
            if progress.is_over and not progress.rows:
                return
            self._task = self._progress.add_task("", total=None, rate=0.0)
            self._progress.start()
        # An update cannot take a total back.
        self._progress.tasks[0].total = _total(progress)
        self._progress.update(
            self._task,
            description=f"{self._what} {progress.table} ({progress.table_number} of {progress.tables})",
            completed=progress.rows,
            rate=progress.rows_per_s,
        )
        if progress.is_over:
            self.stop()

    def stop(self) -> None:
        """Leaves the terminal as it is."""
        if self._task is not None:
            self._progress.stop()
            self._task = None


def _total(progress: CopyProgress) -> float | None:
    """How many rows there will be; None, so that the bar only moves, while that is not known: Postgres' estimate
    of a table that was never analyzed is 0, and of one that grew since it is too low."""
    if progress.is_over:
        return progress.rows
    return progress.expected_rows if progress.expected_rows > progress.rows else None
