"""What was read and is not stored yet: the one buffer between the slot and the broker.

The pump adds messages while the sender has a unit of earlier ones on its way, so that units
grow with the load by themselves: a lone event goes at once, a loaded WAL in long runs. It is
bounded in messages and bytes; one message of any size fits when it is empty. No I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bridge.change import Position
from bridge.outgoing import Outgoing
from protos.events.v1.rejected_pb2 import DeadLetter

_FRAME_MESSAGES = 64
"""By so many messages the outbox may be over its bound: what one frame comes to, at most a truncation's."""

_ATOMIC_MESSAGES = 999
"""As many the broker stores at once, all or none, beside their mark."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages to be stored together, and what is stored once they are: the last change, and how
    far the source was read. ``messages`` may be empty: then only the source moved on. ``letters`` are
    the bodies of rejected rows, to be stored before the messages that stand in their place."""

    messages: list[Outgoing]
    letters: list[DeadLetter]
    size: int
    position: Position
    wal_lsn: int
    wal_time_us: int
    commit_time_us: int
    """When the last change's transaction was committed, by the source's clock; 0: not known."""
    told: list[Callable[[], None]]
    """Who wants to know that it is stored."""
    is_atomic: bool = False
    """Whether it is to be stored with its mark or not at all: a domain event is in it."""


class Outbox:
    """Messages in the order of the source. ``max_messages`` and ``max_bytes`` bound it."""

    def __init__(
        self,
        position: Position,
        wal_lsn: int,
        max_messages: int,
        max_bytes: int,
        commit_time_us: int = 0,
    ) -> None:
        # The last change that was added; before the first, the checkpoint.
        self._lsn, self._index, self._complete = position
        self.commit_time_us = commit_time_us
        self.wal_lsn = wal_lsn
        self.wal_time_us = 0
        self.is_closed = False
        self.has_events = False
        """Whether domain events may be among the messages: those are stored with their mark or not at all."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: list[Outgoing] = []
        self._positions: list[tuple[int, int, bool, int]] = []
        self._letters: list[DeadLetter] = []
        self._letter_bytes = 0
        self._told: list[Callable[[], None]] = []
        self._size = 0
        self._taken_lsn = wal_lsn
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def position(self) -> Position:
        """The last change that was added; before the first, the checkpoint."""
        return Position(self._lsn, self._index, self._complete)

    def covers(self, lsn: int, index: int) -> bool:
        """Whether the change at (lsn, index) was added before, or stands in the stream."""
        return lsn < self._lsn or (lsn == self._lsn and (self._complete or index <= self._index))

    def covers_transaction(self, lsn: int) -> bool:
        """Whether all changes of the transaction that committed at ``lsn`` were added, or stand in the stream."""
        return lsn < self._lsn or (lsn == self._lsn and self._complete)

    def add(self, message: Outgoing, lsn: int, index: int, complete: bool, commit_time_us: int = 0) -> None:
        """Adds the message of the change at (lsn, index); ``complete``: it is its transaction's last.
        Call ``room`` before the next one when ``is_full``."""
        self._messages.append(message)
        self._positions.append((lsn, index, complete, commit_time_us))
        self._size += len(message.payload)
        self._lsn, self._index, self._complete = lsn, index, complete
        self.commit_time_us = commit_time_us

    def add_letter(self, letter: DeadLetter) -> None:
        """Adds the body of a rejected row, whose marker is added next."""
        self._letters.append(letter)
        self._letter_bytes += letter.ByteSize()

    def insert(self, messages: list[Outgoing], stored: Callable[[], None]) -> None:
        """Adds what is no change of the source, behind what was added; ``stored`` is told when it is."""
        if messages:
            self._messages += messages
            place = (self._lsn, self._index, self._complete, self.commit_time_us)
            self._positions += [place] * len(messages)
            self._size += sum(len(message.payload) for message in messages)
            self._told.append(stored)

    def reached(self, wal_lsn: int) -> None:
        """All changes before ``wal_lsn`` were added, or do not concern the stream."""
        self.wal_lsn = max(self.wal_lsn, wal_lsn)

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= self._max_messages or self._size + self._letter_bytes >= self._max_bytes

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    @property
    def size(self) -> int:
        """How many bytes of payload wait."""
        return self._size

    async def room(self) -> None:
        """Waits until the sender took what is here."""
        self._room.clear()
        self._filled.set()
        await self._room.wait()

    def offer(self) -> None:
        """Says to the sender that there may be something for it."""
        self._filled.set()

    def close(self) -> None:
        """Nothing is added any more; the sender ends when it has stored what is here."""
        self.is_closed = True
        self._filled.set()

    async def filled(self, timeout_s: float) -> None:
        """Waits for ``offer``, ``room`` or ``close``, or for so long."""
        if not self._filled.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                return
        self._filled.clear()

    def take(self) -> Unit:
        """What is here, up to ``max_bytes`` of messages; a larger one comes by itself."""
        messages, size = self._messages, self._size
        is_atomic, most = self.has_events, self._max_messages + _FRAME_MESSAGES
        if is_atomic:
            most = min(most, _ATOMIC_MESSAGES)
        letters, self._letters, self._letter_bytes = self._letters, [], 0
        if (size > self._max_bytes and len(messages) > 1) or len(messages) > most:
            return self._take_part(letters, is_atomic)
        self._messages, self._positions, self._size = [], [], 0
        self.has_events = False
        told, self._told = self._told, []
        self._taken_lsn = self.wal_lsn
        self._room.set()
        position, at = self.position, self.commit_time_us
        return Unit(messages, letters, size, position, self.wal_lsn, self.wal_time_us, at, told, is_atomic)

    def _take_part(self, letters: list[DeadLetter], is_atomic: bool) -> Unit:
        count, size = 1, len(self._messages[0].payload)
        most = min(self._max_messages, _ATOMIC_MESSAGES) if is_atomic else self._max_messages
        while count < most and size + len(self._messages[count].payload) <= self._max_bytes:
            size += len(self._messages[count].payload)
            count += 1
        messages = self._messages[:count]
        lsn, index, complete, at = self._positions[count - 1]
        position = Position(lsn, index, complete)
        del self._messages[:count], self._positions[:count]
        self._size -= size
        self._filled.set()  # for the rest
        # Which of the commits since belong to this part is not known: the source is said to be where it was.
        return Unit(messages, letters, size, position, self._taken_lsn, self.wal_time_us, at, [], is_atomic)
