"""Notices that a connection is silent for longer than its server ever is.

A connection whose other end vanished without a word, or whose bytes somebody swallows, looks
like one on which nothing happens. The server says something at least every 10 s, so silence
means that it is gone. One timer a connection, which is set again only when it rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchdog:
    """Calls ``on_silence`` once, when ``heard`` was not called for ``silence_s`` seconds."""

    def __init__(self, silence_s: float, on_silence: Callable[[], None]) -> None:
        self._silence_s = silence_s
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(silence_s, self._ring)

    def heard(self) -> None:
        """Something came."""
        self._heard_at = self._loop.time()

    def pause(self) -> None:
        """Nothing is listened for: silence says nothing."""
        if self._timer is not None:
            self._timer.cancel()

    def resume(self) -> None:
        """It is listened again, from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self.heard()
            self._timer = self._loop.call_later(self._silence_s, self._ring)

    def stop(self) -> None:
        """For good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        due_at = self._heard_at + self._silence_s
        if self._loop.time() < due_at:
            self._timer = self._loop.call_at(due_at, self._ring)
        else:
            self._timer = None
            self._on_silence()
