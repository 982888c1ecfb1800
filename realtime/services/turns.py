"""Whose frame is sent next on a connection: by turns, and by bytes.

Deficit round robin: who sent more than its share of bytes lets others go first until that is
made up for, so that a catch-up in full frames does not delay the small live frames of
another subscription. And who may wait for more events to share a frame (its linger) comes into
the row only then.

Source: Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin" (1995).
"""

from __future__ import annotations

import asyncio
from collections import deque

from realtime.subscriber import Subscriber
from realtime.terms import AUTO_LINGER_S

_QUANTUM_BYTES = 16 * 1024


class Turns:
    """The subscriptions of one connection that have something to send."""

    def __init__(self) -> None:
        self._row: deque[Subscriber] = deque()
        self._waiting: set[Subscriber] = set()
        self._debts: dict[Subscriber, int] = {}
        self._sent_at: dict[Subscriber, float] = {}
        self._timers: dict[Subscriber, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """How many are in the row."""
        return len(self._waiting)

    def note(self, subscriber: Subscriber) -> bool:
        """Says that a subscription has something to send. False while it lingers: say so again for each event."""
        if subscriber in self._waiting:
            return True
        left_s = self._linger_left_s(subscriber)
        timer = self._timers.get(subscriber)
        if left_s > 0:
            if timer is None:
                loop = asyncio.get_running_loop()
                self._timers[subscriber] = loop.call_later(left_s, self._enter, subscriber)
            return False
        self._enter(subscriber)
        return True

    async def filled(self, until: float) -> None:
        """Waits until somebody is in the row, or until the loop's time ``until``."""
        try:
            async with asyncio.timeout_at(until):
                await self._filled.wait()
        except TimeoutError:
            return

    def flush(self) -> None:
        """Nobody lingers any more."""
        for subscriber in list(self._timers):
            self._enter(subscriber)
        self._filled.set()

    def wake(self) -> None:
        """Ends ``filled`` though nobody may be in the row."""
        self._filled.set()

    def next(self) -> Subscriber | None:
        """Who is next; None when nobody is. ``sent`` comes after it."""
        self._filled.clear()
        while self._row:
            subscriber = self._row.popleft()
            debt = self._debts.get(subscriber, 0)
            if debt > 0 and self._row:
                self._debts[subscriber] = debt - _QUANTUM_BYTES
                self._row.append(subscriber)
                continue
            if not subscriber.has_frames:
                self._leave(subscriber)
                continue
            return subscriber
        return None

    def sent(self, subscriber: Subscriber, size: int) -> None:
        """Says that a frame of so many bytes of it was written."""
        self._sent_at[subscriber] = asyncio.get_running_loop().time()
        if subscriber.has_frames:
            self._debts[subscriber] = max(0, self._debts.get(subscriber, 0)) + size - _QUANTUM_BYTES
            self._row.append(subscriber)
        else:
            self._leave(subscriber)

    def skip(self, subscriber: Subscriber) -> None:
        """Takes the one that ``next`` gave out of the row, unsent: it says itself when it is ready again."""
        self._leave(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """A subscription is over."""
        self._sent_at.pop(subscriber, None)
        self._debts.pop(subscriber, None)
        timer = self._timers.pop(subscriber, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Ends all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _leave(self, subscriber: Subscriber) -> None:
        self._waiting.discard(subscriber)
        self._debts.pop(subscriber, None)

    def _enter(self, subscriber: Subscriber) -> None:
        timer = self._timers.pop(subscriber, None)
        if timer is not None:
            timer.cancel()
        if subscriber not in self._waiting:
            self._waiting.add(subscriber)
            self._row.append(subscriber)
        self._filled.set()

    def _linger_left_s(self, subscriber: Subscriber) -> float:
        linger_s = subscriber.terms.linger_s
        if linger_s == 0 or subscriber.is_full_frame():
            return 0.0
        if linger_s is not None:
            return linger_s
        # Under load alone: who was sent nothing lately gets the event at once.
        sent_at = self._sent_at.get(subscriber, 0.0)
        return sent_at + AUTO_LINGER_S - asyncio.get_running_loop().time()
