"""Rows that were read beside the stream, put into it where they are neither too old nor too new.

A low watermark goes through the WAL, rows are read, a high one follows. A row that changed between
the two in the stream's order is left out: the stream says it better. So is the whole chunk when a
transaction that stands before the low watermark was not yet visible to the read, which Postgres
allows for a moment: it is read again. After Netflix' DBLog (Andreakis, Papapanagiotou, 2020).
No I/O; the pump asks it at each change and each commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from bridge.change import Begin, LogicalMessage, RowChange, Truncate
from bridge.outgoing import Outgoing

PREFIX = "zephyr.watermark"
_XIDS_KEPT = 4096
"""Transactions before a low watermark that are held against a read's snapshot."""
_KEYS_KEPT = 100_000
_HALF = 1 << 31
_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows by key, as a read found them. ``snapshot`` is Postgres' text of what it saw: ``xmin:xmax:xip,…``."""

    rows: dict[str, Outgoing]
    snapshot: str
    mark: Outgoing


class Window:
    """Between two watermarks: which keys changed. One chunk at a time."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_XIDS_KEPT)
        self._id = ""
        self._oid = 0
        self._key = ""
        self._is_open = False
        self._is_closing = False
        self._is_spoiled = False
        self._before: frozenset[int] = frozenset()
        self._changed: set[str] = set()
        self._chunk: Chunk | None = None
        self._outcome: asyncio.Future[int] | None = None
        self._handed = -1
        self._parting: Outgoing | None = None

    def expect(self, window_id: str, oid: int, key: str) -> None:
        """The next watermarks are those of ``window_id``, about the table ``oid`` and its key column."""
        self._id, self._oid, self._key = window_id, oid, key
        self._is_open = self._is_closing = self._is_spoiled = False
        self._changed = set()
        self._handed = -1

    def close_with(self, chunk: Chunk) -> asyncio.Future[int]:
        """Hands over what was read, before the high watermark is written. The result is the number
        of rows that were stored, -1 when the chunk has to be read again."""
        self._chunk = chunk
        self._outcome = asyncio.get_running_loop().create_future()
        return self._outcome

    def heard(self, message: LogicalMessage) -> None:
        """Takes a logical message, in its place."""
        if message.prefix != PREFIX or not self._id:
            return
        if message.content == f"{self._id}:low".encode():
            self._is_open = True
            self._before = frozenset(self._recent)
        elif message.content == f"{self._id}:high".encode() and self._is_open:
            self._is_closing = True

    def change(self, change: RowChange | Truncate) -> None:
        """Takes a change, in its place."""
        if not self._is_open:
            return
        if isinstance(change, Truncate):
            self._is_spoiled |= any(relation.oid == self._oid for relation in change.relations)
        elif change.relation.oid == self._oid:
            at = next(i for i, column in enumerate(change.relation.columns) if column.name == self._key)
            for row in (change.old, change.new):
                if row is not None:
                    self._changed.add(str(row[at]))
            self._is_spoiled |= len(self._changed) > _KEYS_KEPT

    def leave(self, mark: Outgoing) -> None:
        """No chunk is open any more, or one is given up: ``mark`` is stored after the next commit."""
        self._id = ""
        self._is_open = self._is_closing = False
        self._chunk = self._outcome = None
        self._parting = mark

    def committed(self, begin: Begin) -> list[Outgoing]:
        """Takes a commit; gives what is to be stored after it."""
        self._recent.append(begin.xid & _MASK)
        if self._parting is not None:
            parting, self._parting = self._parting, None
            return [parting]
        if not self._is_closing or self._chunk is None:
            return []
        chunk, self._chunk = self._chunk, None
        self._is_open = self._is_closing = False
        self._id = ""
        if self._is_spoiled or _hides(chunk.snapshot, self._before):
            self._resolve(-1)
            return []
        rows = [row for key, row in chunk.rows.items() if key not in self._changed]
        self._handed = len(rows)
        return [*rows, chunk.mark]

    def stored(self) -> None:
        """What ``committed`` gave is stored."""
        self._resolve(self._handed)

    def _resolve(self, result: int) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(result)
        self._outcome = None


def _hides(snapshot: str, xids: frozenset[int]) -> bool:
    """Whether a snapshot takes one of the transactions for one that has not ended."""
    _, end, running = snapshot.split(":")
    xmax = int(end) & _MASK
    hidden = {int(xid) & _MASK for xid in running.split(",") if xid}
    return any(xid in hidden or ((xid - xmax) & _MASK) < _HALF for xid in xids)
