"""The broadcasts that wait for one subscription. When they are too many the oldest go, and are counted.

They take no credit, but a subscription that has none is paused and gets none. Their frames say
nothing of the stream: the coverage stands still, and there is no cursor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protos.events.v1.stream_pb2 import Broadcasts, Coverage, SubscribeResponse
from protos.wire import delimited, delimited_header, varint_field
from realtime.broadcast.cast import BROADCASTS_FIELD, Cast, Item
from realtime.budget import Budget
from realtime.filters import Filter
from realtime.frames import FRAME_BYTES, name_field
from realtime.subscriber import Subscriber

_COVERAGE_FIELD: Final = SubscribeResponse.COVERAGE_FIELD_NUMBER
_AFTER_FIELD: Final = Coverage.AFTER_FIELD_NUMBER
_THROUGH_FIELD: Final = Coverage.THROUGH_FIELD_NUMBER
_DROPPED_FIELD: Final = Broadcasts.DROPPED_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class BroadcastLimits:
    """What waits for one subscription, and in bytes for all of one connection."""

    max_events: int = 64
    max_bytes: int = 256 * 1024
    max_connection_bytes: int = 1024 * 1024


class Box:
    """``filter`` is the one that it stands in the index with; ``waiting`` is called when something waits."""

    __slots__ = (
        "_budget",
        "_items",
        "_limits",
        "_prefix",
        "_waiting",
        "bytes",
        "dropped",
        "filter",
        "is_in_row",
        "subscriber",
    )

    def __init__(
        self,
        subscriber: Subscriber,
        limits: BroadcastLimits,
        budget: Budget,
        waiting: Callable[[Box], None],
    ) -> None:
        self.subscriber = subscriber
        self.filter: Filter = subscriber.filter
        self.bytes = 0
        self.dropped = 0
        """Since the last frame."""
        self.is_in_row = False
        self._items: deque[tuple[Cast, Item]] = deque()
        self._limits = limits
        self._budget = budget
        self._waiting = waiting
        self._prefix = name_field(subscriber.name)

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, cast: Cast, item: Item) -> None:
        """Takes a broadcast, in the place of the oldest ones if there is no room; or drops it, when the
        subscription is paused or the others of its connection hold all the room."""
        if self.subscriber.is_closed:
            return
        size = len(item.event)
        items = self._items
        if not self.subscriber.credit.is_open:
            self.dropped += 1
        else:
            limits, budget = self._limits, self._budget
            while items and (
                len(items) >= limits.max_events
                or self.bytes + size > limits.max_bytes
                or not budget.has_room(size)
            ):
                self._drop_oldest()
            if budget.has_room(size):
                items.append((cast, item))
                self.bytes += size
                budget.charge(size)
            else:
                self.dropped += 1
        if not self.is_in_row:
            self._waiting(self)

    @property
    def is_due(self) -> bool:
        """Whether a frame may be taken now."""
        subscriber = self.subscriber
        return (
            bool(self._items) or (self.dropped > 0 and subscriber.credit.is_open)
        ) and subscriber.takes_broadcasts

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say, now or later."""
        return not self._items and not self.dropped

    def take_frame(self) -> bytes:
        """The next frame, encoded. Only when ``is_due``."""
        at = self.subscriber.sent.sequence
        coverage = delimited(
            _COVERAGE_FIELD, varint_field(_AFTER_FIELD, at) + varint_field(_THROUGH_FIELD, at)
        )
        parts: list[bytes] = []
        size = 0
        items = self._items
        if len(items) == 1 and not self.dropped:
            # Nearly always: who keeps up gets them one by one, and all get the same bytes.
            _, item = items.popleft()
            self._refund(len(item.event))
            return b"".join((self._prefix, coverage, item.alone))
        while items and (not parts or size + len(items[0][1].event) <= FRAME_BYTES):
            data = items.popleft()[1].event
            parts.append(data)
            size += len(data)
        self._refund(size)
        tail = varint_field(_DROPPED_FIELD, self.dropped)
        self.dropped = 0
        header = delimited_header(BROADCASTS_FIELD, size + len(tail))
        return b"".join((self._prefix, coverage, header, *parts, tail))

    def keep(self, wanted: Callable[[Cast], bool]) -> None:
        """Forgets what may not be seen any more; it does not count as dropped."""
        before = self.bytes
        self._items = deque([each for each in self._items if wanted(each[0])])
        self._refund(before - sum([len(item.event) for _, item in self._items]))

    def clear(self) -> None:
        """Forgets all of it: the subscription is over."""
        self._items.clear()
        self._refund(self.bytes)
        self.dropped = 0

    def _drop_oldest(self) -> None:
        self._refund(len(self._items.popleft()[1].event))
        self.dropped += 1

    def _refund(self, size: int) -> None:
        self.bytes -= size
        self._budget.refund(size)
