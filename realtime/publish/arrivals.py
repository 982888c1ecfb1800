"""When the broker stored what this server has read lately.

An acknowledgement says a message's sequence; the time that its cursor needs comes with the message
itself, which the source reads anyway. Bounded: who comes late reads the stream.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from realtime.entry import Entry

_KEPT = 65_536


class Arrivals:
    """Timestamps by sequence, of the last messages that were taken in."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self.epoch = ""
        self.head = 0
        """Sequence of the last message that was taken in."""
        self._firsts: list[int] = []
        self._chunks: list[list[int]] = []
        self._size = 0
        self._moved: asyncio.Event | None = None

    def begin(self, epoch: str, head: int) -> None:
        """The source begins anew after ``head``: what was read before may be another history's."""
        self.epoch = epoch
        self.head = head
        self._firsts, self._chunks, self._size = [], [], 0
        self._wake()

    def take(self, entries: Sequence[Entry]) -> None:
        """What was read next, in order."""
        if not entries:
            return
        first, last = entries[0].sequence, entries[-1].sequence
        if last - first + 1 == len(entries):
            self._add(first, [entry.timestamp_ns for entry in entries])
        else:
            for entry in entries:
                self._add(entry.sequence, [entry.timestamp_ns])
        self.head = last
        while self._size > self._kept and len(self._chunks) > 1:
            self._size -= len(self._chunks[0])
            del self._firsts[0], self._chunks[0]
        self._wake()

    def timestamp_ns(self, sequence: int) -> int:
        """The broker's time of a message; 0 when it is not known here."""
        at = bisect_right(self._firsts, sequence) - 1
        if at < 0:
            return 0
        chunk, within = self._chunks[at], sequence - self._firsts[at]
        return chunk[within] if within < len(chunk) else 0

    async def reached(self, sequence: int) -> None:
        """Waits until everything up to ``sequence`` was taken in."""
        while self.head < sequence:
            await self._next()

    async def begun(self) -> None:
        """Waits until the stream's epoch is known."""
        while not self.epoch:
            await self._next()

    async def _next(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    def _add(self, first: int, timestamps: list[int]) -> None:
        self._firsts.append(first)
        self._chunks.append(timestamps)
        self._size += len(timestamps)

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
