"""What is live goes first: how much of the loop the pasts may have, all of them together.

While nothing live is sent they have all of it, in slices of about a millisecond. While something is, a slice
is small, begins when no live frame is under way, and is followed by a rest that is a multiple of what it
took. The multiple grows while the loop is late, whoever makes it so (another process on the same
processors, too), and shrinks while it is not. No rest is longer than some milliseconds, and a past that
has not been handed twice as much as came meanwhile does not rest: each of them arrives, whatever the load.

Why not another process: docs/decisions/022-what-is-live-goes-first.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

from realtime.hub import Hub

SLICE: Final = 256
LIVE_SLICE: Final = 128
"""Entries that are handed over in one turn of the loop: a millisecond of work, compiled, and half of it."""
LIVE_S: Final = 0.1
"""For so long after a live frame others are expected."""
REST_S: Final = 0.001
"""The shortest rest, since timers are no finer; what is owed below it is owed on."""
MOST_REST_S: Final = 0.01
PATIENCE_S: Final = 0.01
"""For how long a slice waits for live frames that are under way."""
FACTORS: Final = (2.0, 8.0)
LATE_S: Final = 0.002
"""A loop that wakes later than this is late."""
ALLOWANCE: Final = 1024
"""So many entries less than it must a past may have been handed, so that its first slices rest too."""
READ_BYTES: Final = 64 * 1024
"""What is taken off the socket of the pasts in one turn, or between two rests."""


class Pace:
    """The one of a server. ``clock`` and ``sleep`` are in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self.lock = asyncio.Lock()
        self.factor = FACTORS[0]
        """How many times as long as they worked the pasts rest."""
        self._sleep = sleep
        self._sending = 0
        self._stuck = 0
        """How many of them did not end in ``PATIENCE_S``: their clients read slowly, and nobody waits for them."""
        self._live_until = 0.0
        self._owed_s = 0.0
        self._unrested_bytes = 0

    @property
    def is_live(self) -> bool:
        """Whether live frames are sent now, or were just now."""
        return self.clock() < self._live_until

    @property
    def slice(self) -> int:
        """How many entries may be handed over in one turn."""
        return LIVE_SLICE if self.is_live else SLICE

    def begin_live(self) -> None:
        """A live frame is to be sent. ``end_live`` comes when it was."""
        self._sending += 1
        self._live_until = self.clock() + LIVE_S

    def end_live(self) -> None:
        """It was sent, or will not be."""
        self._sending -= 1
        self._stuck = min(self._stuck, self._sending)

    async def rest(self) -> None:
        """Before a slice: pays what is owed, and lets live frames go."""
        owed, self._owed_s = self._owed_s, 0.0
        if not self.is_live:
            self.factor = FACTORS[0]
            return
        if owed < REST_S:
            self._owed_s = owed
        else:
            await self._pause(min(owed, MOST_REST_S))
        waited = 0.0
        while self._sending > self._stuck:
            if waited >= PATIENCE_S:
                self._stuck = self._sending
                break
            await self._sleep(REST_S)
            waited += REST_S

    async def read(self, size: int) -> None:
        """Before so many bytes of the pasts are read: what the broker sends at once is not read at once, where it
        would pile up and be cold in the caches by the time that it is taken."""
        self._unrested_bytes += size
        if self._unrested_bytes >= READ_BYTES:
            self._unrested_bytes = 0
            await self._sleep(REST_S if self.is_live else 0)

    def worked(self, seconds: float) -> None:
        """So much of the loop's time went into a past."""
        self._owed_s += seconds * self.factor

    async def _pause(self, seconds: float) -> None:
        began = self.clock()
        await self._sleep(seconds)
        least, most = FACTORS
        if self.clock() - began - seconds > LATE_S:
            self.factor = min(most, self.factor * 1.5)
        else:
            self.factor = max(least, self.factor * 0.9)


class Past:
    """One past on its way, in turns with the others: ``async with`` it for each piece of work."""

    def __init__(self, pace: Pace, hub: Hub) -> None:
        self.pace = pace
        self._hub = hub
        self._began = hub.position.sequence
        self._handed = 0
        self._at = 0.0

    @property
    def gains(self) -> bool:
        """Whether it comes nearer to the live edge than that moves away."""
        return self._handed + ALLOWANCE >= 2 * (self._hub.position.sequence - self._began)

    def handed(self, count: int) -> None:
        """It was handed so many entries."""
        self._handed += count

    async def __aenter__(self) -> None:
        pace = self.pace
        await pace.lock.acquire()
        try:
            if self.gains:
                await pace.rest()
        except BaseException:
            pace.lock.release()
            raise
        self._at = pace.clock()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pace = self.pace
        pace.worked(pace.clock() - self._at)
        pace.lock.release()
