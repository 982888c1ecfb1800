"""When each stream says that it is alive: one timer for all streams of a server, so that an idle one has none.

A wheel of slots, one after the other each ``interval_s / SLOTS``. A stream stands in the slot of its next beat
and says how far it is until the next one; streams that come are dealt out over the slots, so that ten
thousand idle ones never speak at the same time.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOTS = 100


class Beating(Protocol):
    """What has a heartbeat. ``slot`` is kept by the wheel."""

    slot: int

    def beat(self) -> int:
        """Says that it is alive; gives after how many slots it is to be asked again, at most ``SLOTS``."""


class Heartbeats:
    """Asks each of them at least every ``interval_s``."""

    def __init__(self, interval_s: float) -> None:
        self._step_s = interval_s / SLOTS
        self._slots: list[dict[Beating, None]] = [{} for _ in range(SLOTS)]
        self._count = 0
        self._dealt = 0
        self._now = 0
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Beating) -> None:
        """A stream begins."""
        self._dealt = (self._dealt + 1) % SLOTS
        self._put(stream, 1 + self._dealt)
        self._count += 1
        if self._timer is None:
            self._at = asyncio.get_running_loop().time()
            self._set()

    def remove(self, stream: Beating) -> None:
        """It is over. With the last of them the timer ends."""
        del self._slots[stream.slot][stream]
        self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, stream: Beating, after: int) -> None:
        stream.slot = (self._now + after) % SLOTS
        self._slots[stream.slot][stream] = None

    def _set(self) -> None:
        # From the time it was due, so that the wheel does not slow down; but it makes up for no long stand-still.
        loop = asyncio.get_running_loop()
        self._at = max(self._at + self._step_s, loop.time())
        self._timer = loop.call_at(self._at, self._turn)

    def _turn(self) -> None:
        self._set()
        self._now = (self._now + 1) % SLOTS
        due, self._slots[self._now] = self._slots[self._now], {}
        for stream in due:
            self._put(stream, stream.beat())
