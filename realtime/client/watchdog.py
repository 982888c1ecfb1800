"""Notices that a connection is silent for longer than its server ever is.

A connection whose other end vanished without a word, or whose bytes somebody swallows, looks
like one on which nothing happens. The server says something at least every 10 s, so silence
means that it is gone. One timer a connection, which is set again only when it rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LATE_S = 0.5


class Watchdog:
    """Calls ``on_silence`` once, when ``heard`` was not called for ``silence_s`` seconds."""

    def __init__(self, silence_s: float, on_silence: Callable[[], None]) -> None:
        self._silence_s = silence_s
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._rings_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._set(self._heard_at + silence_s)

    def heard(self) -> None:
        """Something came."""
        self._heard_at = self._loop.time()

    def pause(self) -> None:
        """Nothing is listened for: silence says nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """It is listened again, from now on."""
        self.pause()
        self.heard()
        if not self._is_stopped:
            self._set(self._heard_at + self._silence_s)

    def stop(self) -> None:
        """For good."""
        self._is_stopped = True
        self.pause()

    def _set(self, at: float) -> None:
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        due_at = self._heard_at + self._silence_s
        if now < due_at:
            self._set(due_at)
        elif now > self._rings_at + _LATE_S:
            # The loop itself stood still: what came meanwhile could not be heard yet.
            self._set(now + _LATE_S)
        else:
            self._timer = None
            self._on_silence()
