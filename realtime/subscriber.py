"""One subscription's mailbox: filled by the hub or by a catch-up, emptied by the stream's sender.

``offer`` never waits: when there is no room it says so, and the subscription leaves the
live edge. What is in the mailbox stays; the rest is read back from the stream. Control
frames (ready, caught up, …) take their turn among the events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protos.events.v1.stream_pb2 import (
    CaughtUp,
    Closed,
    Coverage,
    Events,
    FellBehind,
    Progress,
    Ready,
    Reset,
    SubscribeResponse,
)
from protos.wire import delimited_header, varint_field
from realtime.entry import Entry
from realtime.filters import Filter
from realtime.history import Item
from realtime.point import ORIGIN, Point

Control = Ready | CaughtUp | FellBehind | Progress | Reset | Closed

_FIELDS = {
    Ready: "ready",
    CaughtUp: "caught_up",
    FellBehind: "fell_behind",
    Progress: "progress",
    Reset: "reset",
    Closed: "closed",
}
_EVENTS_FIELD = SubscribeResponse.EVENTS_FIELD_NUMBER
_OPEN_FIELD = Events.TRANSACTION_OPEN_FIELD_NUMBER
_FRAME_BYTES = 64 * 1024
_FRAME_MAX_BYTES = 900 * 1024
"""A frame grows to the first; to the second to keep a transaction together; an event over it goes alone."""


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """Bounds of one mailbox."""

    max_events: int = 4096
    max_bytes: int = 4 * 1024 * 1024


class Subscriber:
    """A subscription between its opening and its end.

    ``examined`` is the point up to which everything that matches is in the mailbox or was
    sent; ``sent`` is where the last frame ended. Both are of one numbering. At the live edge
    ``examined`` is the hub's own position, whatever matched.
    """

    def __init__(
        self, name: str, wanted: Filter, limits: MailboxLimits, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.filter = wanted
        self.epoch = ""
        self.sent = ORIGIN
        self.is_closed = False
        self.lagging = asyncio.Event()
        self._examined = ORIGIN
        self._edge: Callable[[], Point] | None = None
        self._limits = limits
        self._on_ready = on_ready
        self._queue: deque[tuple[Point, Entry | Control]] = deque()
        self._events = 0
        self._bytes = 0
        self._lsn = 0  # the transaction of the last event that was taken out
        self._room = asyncio.Event()
        self._room.set()

    def begin(self, start: Point, epoch: str) -> None:
        """Sets the point that the first frame begins after. Until then frames carry no cursor."""
        self.epoch = epoch
        self.sent = start
        self._examined = start

    @property
    def examined(self) -> Point:
        return self._edge() if self._edge is not None else self._examined

    @property
    def is_live(self) -> bool:
        return self._edge is not None

    def examine(self, point: Point) -> None:
        """Says how far a catch-up is."""
        self._examined = point

    def go_live(self, edge: Callable[[], Point]) -> None:
        """From now on the hub offers what matches, and ``edge`` gives its position."""
        self._edge = edge
        self.lagging.clear()

    def leave_edge(self, at: Point) -> None:
        """From now on a catch-up goes on after ``at``."""
        self._edge = None
        self._examined = at
        self.lagging.set()

    def offer(self, item: Item) -> bool:
        """Takes an entry if there is room. An empty mailbox takes an entry of any size."""
        entry, point = item
        size = len(entry.frame)
        if self._events and (
            self._events >= self._limits.max_events or self._bytes + size > self._limits.max_bytes
        ):
            self._room.clear()
            return False
        self._queue.append((point, entry))
        self._events += 1
        self._bytes += size
        self._on_ready()
        return True

    async def room(self) -> None:
        """Waits until the mailbox is half empty, after an ``offer`` was refused."""
        await self._room.wait()

    def say(self, control: Control, point: Point | None = None) -> None:
        """Queues a control frame behind what is queued. Free of the bounds: each has its own."""
        self._queue.append((point or self.examined, control))
        self._on_ready()

    def close(self, closed: Closed) -> None:
        """Queues the end; nothing is taken in after it."""
        if not self.is_closed:
            self.say(closed)
            self.stop()

    def stop(self) -> None:
        """Takes nothing in any more, and says nothing of it; what is queued stays."""
        self.is_closed = True
        self._room.set()
        self.lagging.set()

    def renumber(self, stored: int, internal: int) -> None:
        """Moves the counts of every point by the same amount."""
        self.sent = self.sent.renumbered(stored, internal)
        self._examined = self._examined.renumbered(stored, internal)
        self._queue = deque((point.renumbered(stored, internal), what) for point, what in self._queue)

    @property
    def has_frames(self) -> bool:
        return bool(self._queue)

    @property
    def queued(self) -> int:
        """How many events and control frames wait."""
        return len(self._queue)

    @property
    def is_behind(self) -> bool:
        """Whether a progress frame would tell the client something new."""
        return self.sent.sequence < self.examined.sequence

    def take_entries(self, limit: int) -> tuple[list[Entry], Point]:
        """Up to ``limit`` events for a reader in this process, and the point that they lead to."""
        entries: list[Entry] = []
        through = self.sent
        while self._queue and len(entries) < limit:
            through, what = self._queue.popleft()
            if isinstance(what, Entry):
                entries.append(what)
        self._release(len(entries), sum(len(entry.frame) for entry in entries))
        if not self._queue:
            through = max(through, self.examined)
        self.sent = through
        return entries, through

    def take_frame(self) -> bytes:
        """The next frame, encoded. Only when ``has_frames``."""
        point, what = self._queue[0]
        if not isinstance(what, Entry):
            self._queue.popleft()
            frame = self._head(point, 0)
            getattr(frame, _FIELDS[type(what)]).CopyFrom(what)
            return frame.SerializeToString()
        return self._take_events()

    def _take_events(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        through = self.sent
        while self._queue:
            point, what = self._queue[0]
            if not isinstance(what, Entry):
                break
            if parts and size + len(what.frame) > _FRAME_MAX_BYTES:
                break
            self._queue.popleft()
            parts.append(what.frame)
            size += len(what.frame)
            through = point
            if what.commit is not None:
                self._lsn = what.commit.lsn
            if size >= _FRAME_BYTES and not self._goes_on(through):
                break
        self._release(len(parts), size)
        if not self._queue:
            # All that matched is in this frame: it accounts for everything examined.
            through = max(through, self.examined)
        head = self._head(through, len(parts)).SerializeToString()
        tail = varint_field(_OPEN_FIELD, self._goes_on(through))
        return b"".join((head, delimited_header(_EVENTS_FIELD, size + len(tail)), *parts, tail))

    def _goes_on(self, through: Point) -> bool:
        """Whether the last event's transaction has more to come for this subscription, as far as is known."""
        if not through.open_lsn or through.open_lsn != self._lsn:
            return False
        if not self._queue:
            return True
        point, what = self._queue[0]
        if isinstance(what, Entry) and what.commit is not None:
            return what.commit.lsn == self._lsn
        return point.open_lsn == self._lsn

    def _release(self, events: int, size: int) -> None:
        self._events -= events
        self._bytes -= size
        if self._events * 2 <= self._limits.max_events and self._bytes * 2 <= self._limits.max_bytes:
            self._room.set()

    def _head(self, through: Point, matched: int) -> SubscribeResponse:
        before, self.sent = self.sent, through
        internal = through.internal - before.internal
        stored = through.stored - before.stored
        return SubscribeResponse(
            subscription_id=self.name,
            cursor=through.cursor(self.epoch).encode() if self.epoch else b"",
            coverage=Coverage(
                after=before.sequence,
                through=through.sequence,
                matched=matched,
                skipped=stored - internal - matched,
                internal=internal,
            ),
        )
