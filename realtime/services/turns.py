"""Whose frame is sent next on a connection: by turns, and by bytes.

Deficit round robin: who sent more than its share of bytes lets others go first until that is
made up for, so that a catch-up in full frames does not delay the small live frames of
another subscription. And who may wait for more events to share a frame (its linger) comes into
the row only then. What is known of one subscription is its ``Turn``.

Source: Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin" (1995).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from realtime.subscriber import Subscriber
from realtime.terms import AUTO_LINGER_S

_QUANTUM_BYTES = 16 * 1024


def _nothing() -> None:
    return


class Turns:
    """The subscriptions of one connection that have something to send. ``on_filled`` is called whenever one came
    into the row."""

    def __init__(self, on_filled: Callable[[], None] = _nothing) -> None:
        self._on_filled = on_filled
        self._row: list[Subscriber] = []  # it is short: a stream has few subscriptions
        self._lingering: dict[Subscriber, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many are in the row."""
        return len(self._row)

    def note(self, subscriber: Subscriber) -> bool:
        """Says that a subscription has something to send. False while it lingers: say so again for each event."""
        if subscriber.turn.is_in_row:
            return True
        left_s = self._linger_left_s(subscriber)
        if left_s > 0:
            if subscriber not in self._lingering:
                loop = asyncio.get_running_loop()
                self._lingering[subscriber] = loop.call_later(left_s, self._enter, subscriber)
            return False
        self._enter(subscriber)
        return True

    def flush(self) -> None:
        """Nobody lingers any more."""
        for subscriber in list(self._lingering):
            self._enter(subscriber)

    def next(self) -> Subscriber | None:
        """Who is next; None when nobody is. ``sent`` or ``skip`` comes after it."""
        row = self._row
        while row:
            subscriber = row.pop(0)
            turn = subscriber.turn
            if turn.debt > 0 and row:
                turn.debt -= _QUANTUM_BYTES
                row.append(subscriber)
                continue
            if not subscriber.has_frames:
                self._leave(subscriber)
                continue
            return subscriber
        return None

    def sent(self, subscriber: Subscriber, size: int) -> None:
        """Says that a frame of so many bytes of it was written."""
        turn = subscriber.turn
        turn.sent_at = asyncio.get_running_loop().time()
        if subscriber.has_frames:
            turn.debt = max(0, turn.debt) + size - _QUANTUM_BYTES
            self._row.append(subscriber)
        else:
            self._leave(subscriber)

    def skip(self, subscriber: Subscriber) -> None:
        """Takes the one that ``next`` gave out of the row, unsent: it says itself when it is ready again."""
        self._leave(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """A subscription is over."""
        timer = self._lingering.pop(subscriber, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Ends all timers, and calls nobody any more."""
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        self._row.clear()
        self._on_filled = _nothing

    def _leave(self, subscriber: Subscriber) -> None:
        subscriber.turn.is_in_row = False
        subscriber.turn.debt = 0

    def _enter(self, subscriber: Subscriber) -> None:
        if self._lingering:
            self.forget(subscriber)
        if not subscriber.turn.is_in_row:
            subscriber.turn.is_in_row = True
            self._row.append(subscriber)
            self._on_filled()

    def _linger_left_s(self, subscriber: Subscriber) -> float:
        linger_s = subscriber.terms.linger_s
        if linger_s == 0 or subscriber.is_full_frame():
            return 0.0
        if linger_s is not None:
            return linger_s
        # Under load alone: who was sent nothing lately gets the event at once.
        return subscriber.turn.sent_at + AUTO_LINGER_S - asyncio.get_running_loop().time()
