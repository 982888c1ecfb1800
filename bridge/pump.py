"""From frames of the slot to messages in the outbox, one after the other.

Each change takes the next index of its transaction. One message is always held until the
next change or the commit is seen, because the last one carries the count. Reading and
encoding go on while the sender has a unit on its way, until the outbox is full. What the
checkpoint covers is skipped by (commit LSN, index), so a slot that starts earlier, after a
crash on either side, repeats nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from bridge.change import Begin, Commit, LogicalMessage, Position, Relation, RowChange, Truncate
from bridge.encode import Encoder
from bridge.errors import EpochLost, EventRejected
from bridge.ledger import Ledger
from bridge.outbox import Outbox
from bridge.outgoing import Moment, Outgoing
from bridge.pgoutput import XLOG_DATA_HEAD, XLOG_DATA_KIND, Decoder, Keepalive, parse_frame
from bridge.plan import Draft
from bridge.publish import Publisher
from bridge.reject import reject
from bridge.sender import Sender
from bridge.watermarks import Window
from protos.events.v1.rejected_pb2 import DeadLetter

log = structlog.get_logger("bridge")

_FRAMES_A_TURN = 64
"""Frames are taken in turns with the sender, whose socket must not run dry meanwhile."""

_READ_PAUSE_S = 0.001
_REJECTED_SAID = 10


class FrameReader(Protocol):
    """Where frames come from: the slot."""

    async def read(self, timeout_s: float) -> list[bytes]:
        """The frames that have come; an empty list after ``timeout_s``."""

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        """Tells the source what may be forgotten."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What was read and is not acknowledged; ``commit_lsn`` is of the transaction that is open, 0 for none."""

    messages: int
    bytes: int
    commit_lsn: int
    index: int


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
        keep: Callable[[DeadLetter], Awaitable[None]] | None = None,
    ) -> None:
        self._frames = frames
        self._decoder = Decoder()
        self._encoder = encoder
        self._ledger = ledger
        self.outbox = Outbox(
            position or Position(0, 0), wal_lsn, publisher.unit_messages, publisher.unit_bytes
        )
        self.sender = Sender(self.outbox, publisher, ledger, mark_interval_s, keep)
        self._keeps_letters = keep is not None
        self.rejected = 0
        """How many rows of this term could not become events."""
        self._mark_interval_s = mark_interval_s
        self._begin: Begin | None = None
        self._moment: Moment | None = None
        self._skips_transaction = False
        self._index = 0
        self._held: tuple[Draft, int] | None = None
        self.expected_lsn = 0
        """Commit LSN of the last transaction that is stored, when the slot must send it again; 0: it need not."""
        self.window: Window | None = None
        """Asked at each change and commit: rows of a backfill go between two transactions."""
        self.on_message: Callable[[LogicalMessage], None] | None = None
        """Told of each logical message of ours, in its place among the changes; must not block."""

    @property
    def in_flight(self) -> InFlight:
        outbox, sender = self.outbox, self.sender
        lsn = self._begin.commit_lsn if self._begin is not None else 0
        held = self._held is not None
        return InFlight(
            outbox.messages + sender.in_flight + held,
            outbox.size + sender.in_flight_bytes,
            lsn,
            self._index if lsn else 0,
        )

    @property
    def stored_lsn(self) -> int:
        """How far the source was read, with all before it stored or of no concern."""
        return self.sender.stored_lsn

    async def run(self) -> None:
        """Pumps until something breaks; the error says what. What was read before is stored still.

        Raises:
            BridgeError: see ``bridge.errors``.
        """
        reading = asyncio.ensure_future(self._read())
        sending = asyncio.ensure_future(self.sender.run())
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self.outbox.close()
                await asyncio.wait((sending,))
        finally:
            for task in (reading, sending):
                task.cancel()
            ended = await asyncio.gather(sending, reading, return_exceptions=True)
        # The sender's first: what the reader met is met again.
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _read(self) -> None:
        outbox = self.outbox
        while True:
            frames = await self._frames.read(self._mark_interval_s)
            for number, data in enumerate(frames, 1):
                if outbox.is_full:
                    await outbox.room()
                if len(data) > XLOG_DATA_HEAD and data[0] == XLOG_DATA_KIND:
                    self._message(data[XLOG_DATA_HEAD:])
                else:
                    await self._keepalive(data)
                if number % _FRAMES_A_TURN == 0:
                    outbox.offer()
                    await asyncio.sleep(0)
            if frames:
                # What the last of them says holds for all: the server's clock moves on alone.
                outbox.wal_time_us = max(outbox.wal_time_us, parse_frame(frames[-1]).server_time_us)
                outbox.offer()
                # What is read while a unit is on its way waits for it anyway: read more at once, less often.
                pauses = self.sender.in_flight and len(frames) < _FRAMES_A_TURN
                await asyncio.sleep(_READ_PAUSE_S if pauses else 0)

    async def _keepalive(self, data: bytes) -> None:
        frame = parse_frame(data)
        if not isinstance(frame, Keepalive):
            self._message(frame.message)
            return
        if self._begin is None:
            self.outbox.reached(frame.wal_end)
        if frame.reply_requested:
            await self._frames.confirm(self._ledger.confirmable(time.monotonic()))

    def _message(self, data: bytes) -> None:
        message = self._decoder.decode(data)
        kind = type(message)
        if kind is RowChange or kind is Truncate:
            if not self._skips_transaction:
                self._change(message)  # type: ignore[arg-type]
        elif isinstance(message, Begin):
            if self.expected_lsn:
                self._meet(message)
            self._begin = message
            self._encoder.commit_lsn = message.commit_lsn
            self._moment = None
            self._index = 0
            place = self.outbox.position
            self._skips_transaction = message.commit_lsn < place.lsn or (
                message.commit_lsn == place.lsn and place.complete
            )
        elif isinstance(message, Commit):
            self._queue_held(count=self._index)
            begin, self._begin = self._begin, None
            self.outbox.reached(message.end_lsn)
            if self.window is not None and begin is not None:
                self.outbox.insert(self.window.committed(begin), self.window.stored)
        elif isinstance(message, LogicalMessage):
            if self.on_message is not None:
                self.on_message(message)
        else:
            assert message is None or isinstance(message, Relation)

    def _meet(self, begin: Begin) -> None:
        """Whether the source is still the one whose last transaction is stored.

        Raises:
            EpochLost: at the place of that transaction another history goes on, as after a restore.
        """
        if begin.commit_lsn > self.expected_lsn:
            raise EpochLost(
                f"Postgres has no transaction at {self.expected_lsn:X}, the last one in the stream: its history is"
                " another one since (restored from a backup?)",
                "run: zephyr bridge new-epoch",
            )
        if begin.commit_lsn == self.expected_lsn:
            self.expected_lsn = 0

    def _change(self, change: RowChange | Truncate) -> None:
        if self.window is not None:
            self.window.change(change)
        for draft in self._encoder.encode(change):
            if self._held is not None:
                self._queue_held(count=0)
            self._held = (draft, self._index)
            self._index += 1

    def _queue_held(self, count: int) -> None:
        if self._held is None or self._begin is None:
            return
        draft, index = self._held
        self._held = None
        lsn = self._begin.commit_lsn
        if self.outbox.position.covers(lsn, index):
            return
        if self._moment is None:
            self._moment = self._encoder.moment(self._begin)
        try:
            message = draft.plan.message(draft, self._moment, index, count)
        except EventRejected as error:
            if not self._keeps_letters:
                raise
            message = self._reject(draft, error, self._begin, index, count)
        self.outbox.add(message, Position(lsn, index, count > 0))

    def _reject(self, draft: Draft, error: EventRejected, begin: Begin, index: int, count: int) -> Outgoing:
        marker, letter = reject(draft, error, begin, index, count)
        self.outbox.add_letter(letter)
        self.rejected += 1
        # The first ones each, then at every doubling: a table of them must not flood the log.
        if self.rejected < _REJECTED_SAID or self.rejected & (self.rejected - 1) == 0:
            log.warning(
                "a row cannot become an event: it went to the dead letters",
                cause=error.message,
                id=letter.id,
                mend=error.mend,
                rejected=self.rejected,
            )
        return marker
