"""How far a copy of the tables is: counted for the log and the terminal, and kept in marks for the next attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.chunks import CopiedTable, Part
from protos.events.v1.snapshot_pb2 import SnapshotMark, TableProgress

log = structlog.get_logger("bridge")

_LOG_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """What a copy says of itself. ``expected_rows`` is the planner's guess; ``is_over`` is said once."""

    table: str
    table_number: int
    tables: int
    rows: int
    expected_rows: int
    rows_per_s: float
    is_over: bool = False

    @property
    def seconds_left(self) -> float | None:
        """A guess; None without ground for one."""
        if self.rows_per_s <= 0 or self.expected_rows < self.rows:
            return None
        return (self.expected_rows - self.rows) / self.rows_per_s


class CopyLedger:
    """Which blocks are stored, table by table, on top of what an earlier attempt had stored."""

    def __init__(
        self,
        mark: SnapshotMark,
        snapshot_xmin: int,
        tables: Sequence[CopiedTable],
        earlier: dict[str, TableProgress],
        report: Callable[[CopyProgress], None],
    ) -> None:
        self.mark = mark
        self._xmin = snapshot_xmin
        self._tables = {table.name: table for table in tables}
        self._copied = dict(earlier)
        self._ends: dict[str, dict[int, int | None]] = {table.name: {} for table in tables}
        self._next = {table.name: 0 for table in tables}
        self._report = report
        self._began_at = self._logged_at = time.monotonic()
        self._table = tables[0].name if tables else ""
        self._rows_of = {table.name: 0 for table in tables}
        self._is_done = {table.name: False for table in tables}
        self._place_in_mark()

    @property
    def rows(self) -> int:
        """Rows that were stored."""
        return int(self.mark.rows)

    def stored(self, part: Part, rows: int, is_last: bool) -> None:
        """So many more rows of a part are stored; with ``is_last`` all of them."""
        name = part.table.name
        self.mark.rows += rows
        self._rows_of[name] += rows
        self._table = name
        if is_last:
            self._end(part)
        self._say()

    def over(self) -> None:
        """All is stored."""
        self.mark.complete = True
        progress = self.progress(is_over=True)
        self._report(progress)
        log.info("copied the tables", rows=progress.rows, rows_per_s=round(progress.rows_per_s))

    def progress(self, is_over: bool = False) -> CopyProgress:
        """How far it is now."""
        names = list(self._tables)
        expected = sum(
            self._rows_of[name] if self._is_done[name] else max(self._rows_of[name], table.rows)
            for name, table in self._tables.items()
        )
        seconds = max(time.monotonic() - self._began_at, 1e-6)
        number = names.index(self._table) + 1 if names else 0
        return CopyProgress(
            self._table, number, len(names), self.rows, expected, self.rows / seconds, is_over
        )

    def _end(self, part: Part) -> None:
        # Workers end parts out of their order: what counts is how far all before is stored.
        name = part.table.name
        ends = self._ends[name]
        ends[part.first] = part.end
        while self._next[name] in ends:
            end = ends.pop(self._next[name])
            if end is None:
                self._is_done[name] = True
                self._next[name] = max(part.table.blocks, self._next[name])
                break
            self._next[name] = end
        before = self._copied.get(name)
        blocks = self._next[name]
        # Until this attempt is past what the earlier one had, the earlier one's word is the one that holds.
        if (
            before is None
            or before.snapshot_xmin == self._xmin
            or blocks >= before.blocks
            or self._is_done[name]
        ):
            self._copied[name] = TableProgress(
                table=name, filenode=part.table.filenode, blocks=blocks, snapshot_xmin=self._xmin
            )
        self._place_in_mark()

    def _place_in_mark(self) -> None:
        del self.mark.tables[:]
        self.mark.tables.extend(self._copied.values())

    def _say(self) -> None:
        progress = self.progress()
        self._report(progress)
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            left = progress.seconds_left
            log.info(
                "copying the tables",
                table=progress.table,
                number=f"{progress.table_number}/{progress.tables}",
                rows=progress.rows,
                rows_per_s=round(progress.rows_per_s),
                seconds_left=round(left) if left is not None else None,
            )
