"""Control frames of one subscription, each with its turn among the events.

A frame is due when no event at or before its place is left to be sent. What ends the subscription
stands behind every place, and does not wait for credit that may never come.
"""

from __future__ import annotations

import bisect
from typing import Final

from protos.events.v1.stream_pb2 import (
    AuthExpiring,
    CaughtUp,
    Closed,
    FellBehind,
    Gap,
    Progress,
    Ready,
    Reset,
    ScopeChanged,
    SubscribeResponse,
)

Control = Ready | CaughtUp | FellBehind | Progress | Reset | Closed | Gap | ScopeChanged | AuthExpiring

_FIELDS: Final[dict[type[Control], str]] = {
    Ready: "ready",
    CaughtUp: "caught_up",
    FellBehind: "fell_behind",
    Progress: "progress",
    Reset: "reset",
    Closed: "closed",
    Gap: "gap",
    ScopeChanged: "scope_changed",
    AuthExpiring: "auth_expiring",
}
LAST: Final = 1 << 64
"""Behind every sequence: after all that may still be sent."""


class Controls:
    """What is to be said, in the order of its places; of one place, in the order in which it came."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, Control]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def insert(self, place: int, control: Control) -> None:
        """Queues a frame behind the events up to the sequence ``place``, ``LAST`` for all of them."""
        bisect.insort(self._queue, (place, control), key=_place)

    @property
    def first_place(self) -> int:
        """The place of the first of them; ``LAST`` when there is none."""
        return self._queue[0][0] if self._queue else LAST

    @property
    def has_end(self) -> bool:
        """Whether the subscription's end is among them."""
        return bool(self._queue) and self._queue[-1][0] == LAST

    def take_into(self, frame: SubscribeResponse) -> None:
        """Takes the first out, and puts it into a response."""
        _, control = self._queue.pop(0)
        getattr(frame, _FIELDS[type(control)]).CopyFrom(control)

    def drop_states(self) -> None:
        """Drops what is said of the live edge: another snapshot follows."""
        self._queue = [each for each in self._queue if not isinstance(each[1], CaughtUp | FellBehind)]

    def drop_between(self, place: int) -> None:
        """Drops what stands behind a place, but for the end."""
        self._queue = [each for each in self._queue if each[0] <= place or each[0] == LAST]

    def keep_end(self) -> None:
        """Drops all but the end."""
        self._queue = [each for each in self._queue if isinstance(each[1], Closed)]

    def clear(self) -> None:
        """Drops all of it."""
        self._queue.clear()


def _place(queued: tuple[int, Control]) -> int:
    return queued[0]
