"""From the slot to the stream: the two tasks of a term, and what is between them.

One reads frames, which the sequencer turns into messages in the outbox; the other sends
what is there. Reading and encoding go on while a unit is on its way, until the outbox is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.change import Position
from bridge.encode import Encoder
from bridge.ledger import Ledger
from bridge.outbox import Outbox
from bridge.pgoutput import parse_frame
from bridge.publish import Publisher
from bridge.sender import Sender
from bridge.sequencer import Sequencer
from protos.events.v1.rejected_pb2 import DeadLetter

_FRAMES_A_TURN = 64
"""Frames are taken in turns with the sender, whose socket must not run dry meanwhile."""

_READ_PAUSE_S = 0.001


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
        commit_time_us: int = 0,
    ) -> None:
        self._frames = frames
        self._ledger = ledger
        self.outbox = Outbox(
            position or Position(0, 0),
            wal_lsn,
            publisher.unit_messages,
            publisher.unit_bytes,
            commit_time_us,
        )
        self.sender = Sender(self.outbox, publisher, ledger, mark_interval_s, keep)
        self.sequencer = Sequencer(encoder, self.outbox, keep is not None)
        self._mark_interval_s = mark_interval_s

    @property
    def in_flight(self) -> InFlight:
        outbox, sender, sequencer = self.outbox, self.sender, self.sequencer
        return InFlight(
            outbox.messages + sender.in_flight + sequencer.held,
            outbox.size + sender.in_flight_bytes,
            sequencer.open_lsn,
            sequencer.open_index,
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
        outbox, sequencer = self.outbox, self.sequencer
        while True:
            frames = await self._frames.read(self._mark_interval_s)
            at, count = 0, len(frames)
            while at < count:
                if outbox.is_full:
                    await outbox.room()
                at = sequencer.take(frames, at, min(at + _FRAMES_A_TURN, count))
                if sequencer.reply_requested:
                    sequencer.reply_requested = False
                    await self._frames.confirm(self._ledger.confirmable(time.monotonic()))
                if at < count:
                    outbox.offer()
                    await asyncio.sleep(0)
            if frames:
                # What the last of them says holds for all: the server's clock moves on alone.
                outbox.wal_time_us = max(outbox.wal_time_us, parse_frame(frames[-1]).server_time_us)
                outbox.offer()
                # What is read while a unit is on its way waits for it anyway: read more at once, less often.
                pauses = self.sender.in_flight and len(frames) < _FRAMES_A_TURN
                await asyncio.sleep(_READ_PAUSE_S if pauses else 0)
