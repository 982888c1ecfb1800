"""From frames of the slot to messages of the stream, one after the other.

Each change takes the next index of its transaction. One message is always held until the
next change or the commit is seen, because the last one carries the count. What has come at
once is stored at once, as one unit, and the next unit begins when that is acknowledged: a
lone event goes alone, a loaded WAL in runs. What the checkpoint covers is skipped by
(commit LSN, index), so a slot that starts earlier, after a crash on either side, repeats nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from bridge.change import Begin, Commit, LogicalMessage, Position, Relation, RowChange, Truncate
from bridge.encode import Draft, Encoder, Outgoing
from bridge.errors import EventRejected, MappingMismatch
from bridge.ledger import Ledger
from bridge.pgoutput import Decoder, Keepalive, parse_frame
from bridge.publish import Publisher
from bridge.watermarks import Window

_MARK_EVERY_MESSAGES = 1000
"""A tail of at most so many messages is read back when a term begins."""


class FrameReader(Protocol):
    """Where frames come from: the slot."""

    async def read(self, timeout_s: float) -> list[bytes]:
        """The frames that have come; an empty list after ``timeout_s``."""

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        """Tells the source what may be forgotten."""


class Pump:
    """The one path from the slot to the stream in a term."""

    def __init__(
        self,
        frames: FrameReader,
        encoder: Encoder,
        publisher: Publisher,
        ledger: Ledger,
        position: Position | None,
        wal_lsn: int,
        mark_interval_s: float,
    ) -> None:
        self._frames = frames
        self._decoder = Decoder()
        self._encoder = encoder
        self._publisher = publisher
        self._ledger = ledger
        # Stored: the last change, and how far the source was read. Seen: the same with the unit.
        self._stored = self._seen = position or Position(0, 0)
        self._stored_lsn = self._seen_lsn = wal_lsn
        self._wal_time_us = 0
        self._heard = False
        self._mark_interval_s = mark_interval_s
        self._begin: Begin | None = None
        self._skips_transaction = False
        self._index = 0
        self._held: tuple[Draft, int] | None = None
        self._unit: list[Outgoing] = []
        self._unit_bytes = 0
        self.on_message: Callable[[LogicalMessage], None] | None = None
        """Told of each logical message of ours, in its place among the changes; must not block."""

        self.window: Window | None = None
        """Asked at each change and commit: rows of a backfill go between two transactions."""

    async def run(self) -> None:
        """Pumps until something breaks; the error says what.

        Raises:
            BridgeError: see ``bridge.errors``.
        """
        while True:
            for data in await self._frames.read(self._mark_interval_s):
                try:
                    await self._take(data)
                except (EventRejected, MappingMismatch):
                    await self._store_unit()  # what stands before the row that cannot pass
                    raise
            # In a transaction as well: one that stalls, or is only skipped, must not let the marks age.
            await self._store_unit()
            await self._mark_if_due()

    async def _take(self, data: bytes) -> None:
        frame = parse_frame(data)
        self._heard = True
        self._wal_time_us = max(self._wal_time_us, frame.server_time_us)
        if isinstance(frame, Keepalive):
            if self._begin is None:
                self._seen_lsn = max(self._seen_lsn, frame.wal_end)
            if frame.reply_requested:
                await self._frames.confirm(self._ledger.confirmable(time.monotonic()))
            return
        message = self._decoder.decode(frame.message)
        if isinstance(message, RowChange | Truncate):
            await self._change(message)
        elif isinstance(message, Begin):
            self._begin = message
            self._index = 0
            place = self._seen
            self._skips_transaction = message.commit_lsn < place.lsn or (
                message.commit_lsn == place.lsn and place.complete
            )
        elif isinstance(message, Commit):
            await self._queue_held(count=self._index)
            begin, self._begin = self._begin, None
            self._seen_lsn = max(self._seen_lsn, message.end_lsn)
            if self.window is not None and begin is not None:
                await self._insert(self.window, self.window.committed(begin))
        elif isinstance(message, LogicalMessage):
            if self.on_message is not None:
                self.on_message(message)
        else:
            assert message is None or isinstance(message, Relation)

    async def _change(self, change: RowChange | Truncate) -> None:
        if self._skips_transaction:
            return
        if self.window is not None:
            self.window.change(change)
        for draft in self._encoder.encode(change):
            await self._queue_held(count=0)
            self._held = (draft, self._index)
            self._index += 1

    async def _queue_held(self, count: int) -> None:
        if self._held is None or self._begin is None:
            return
        draft, index = self._held
        self._held = None
        lsn = self._begin.commit_lsn
        if self._seen.covers(lsn, index):
            return
        message = draft.finish(self._begin, index, count)
        if self._unit and self._unit_bytes + len(message.payload) > self._publisher.unit_bytes:
            await self._store_unit()
        self._unit.append(message)
        self._unit_bytes += len(message.payload)
        self._seen = Position(lsn, index, complete=count > 0)
        if len(self._unit) >= self._publisher.unit_messages:
            await self._store_unit()

    async def _store_unit(self) -> None:
        """Stores what is queued; then all that was seen is stored, but for the message that is held."""
        if self._unit:
            publisher, count, size = self._publisher, len(self._unit), self._unit_bytes
            if publisher.owner_due(count, size):
                await publisher.renew_owner()
            if publisher.position_due(count, size) or publisher.messages_since_mark >= _MARK_EVERY_MESSAGES:
                await self._mark()
            await publisher.publish(self._unit)
            self._unit = []
            self._unit_bytes = 0
            self._stored = self._seen
        self._stored_lsn = self._seen_lsn

    async def _mark_if_due(self) -> None:
        publisher = self._publisher
        if publisher.owner_due():
            await publisher.renew_owner()
        due = self._heard and publisher.seconds_since_mark >= self._mark_interval_s
        if due or publisher.position_due() or publisher.messages_since_mark >= _MARK_EVERY_MESSAGES:
            await self._mark()

    async def _mark(self) -> None:
        """Marks what is stored."""
        await self._publisher.mark(self._stored, self._stored_lsn, self._wal_time_us)
        self._heard = False
        # Confirmed is only what a stored mark covers, so that a stream that lost its end shows it.
        self._ledger.stored(self._stored_lsn, time.monotonic())

    async def _insert(self, window: Window, messages: list[Outgoing]) -> None:
        """Stores what belongs to no transaction, after what was seen."""
        if not messages:
            return
        for message in messages:
            if self._unit and (
                len(self._unit) >= self._publisher.unit_messages
                or self._unit_bytes + len(message.payload) > self._publisher.unit_bytes
            ):
                await self._store_unit()
            self._unit.append(message)
            self._unit_bytes += len(message.payload)
        await self._store_unit()
        window.stored()
