"""From any point of the past to the live edge.

What the ring still holds is read from it; what is older, in pages from the stream. The
subscription is put on the live edge at the very moment when nothing lies between it and
the hub's position, so that there is neither a gap nor a repetition at the seam.
"""

from __future__ import annotations

import asyncio

from realtime.entry import Entry
from realtime.errors import CursorReset, SourceUnavailable
from realtime.history import Item
from realtime.hub import Hub
from realtime.jetstream import StreamReader, StreamState
from realtime.point import Point
from realtime.subscriber import Subscriber

_RING_BATCH = 256
_PAUSE_S = 0.5
_KEPT_BYTES = 64 * 1024
"""What is kept of a page while its subscription has no room. The connection's budget does not know of it."""
_READERS = 4


class CatchUp:
    """Brings subscriptions to the live edge; a few at a time read from the broker."""

    def __init__(self, hub: Hub, reader: StreamReader) -> None:
        self._hub = hub
        self._reader = reader
        self._readers = asyncio.Semaphore(_READERS)

    async def first_point(self) -> Point:
        """The point before the oldest message that is left.

        Raises:
            SourceUnavailable: the broker does not answer, or a new epoch began that the hub does not know yet.
        """
        state = await self._state()
        return Point(max(0, state.first_sequence - 1), 0, 0, 0, 0)

    async def run(self, subscriber: Subscriber, reset: asyncio.Future[CursorReset]) -> None:
        """Returns when the subscription is live or closed, or ``reset`` is done: then the hub is another.

        Raises:
            CursorReset: what comes next is no longer there.
        """
        hub = self._hub
        await hub.reached(subscriber.examined.sequence)
        while not (subscriber.is_closed or reset.done()):
            after = subscriber.examined
            items = hub.history.read(after.sequence, hub.position.sequence, _RING_BATCH)
            if items is None:
                items = await self._read_stream(after)
                if subscriber.is_closed or reset.done():
                    return
                if not items and not self._skip_hole(subscriber):
                    await subscriber.room()
            else:
                self._take_on_numbering(subscriber)
                if not items:
                    hub.attach(subscriber)
                    return
            await self._hand_over(subscriber, items)

    async def _hand_over(self, subscriber: Subscriber, items: list[Item]) -> None:
        memberships = self._hub.memberships
        for at, item in enumerate(items):
            entry, point = item
            while entry.sequence > (after := subscriber.examined.sequence) + 1:
                if subscriber.gap(after, entry.sequence - 1):
                    break
                _trim(items, at)
                await subscriber.room()
                if subscriber.is_closed:
                    return
            # Asked again after each wait: the filter may have become narrower meanwhile.
            while subscriber.filter.matches(entry, memberships) and not subscriber.offer(item):
                _trim(items, at)
                await subscriber.room()
                if subscriber.is_closed:
                    return
            subscriber.examine(point)
        await asyncio.sleep(0)  # A million events to examine are a matter for many turns of the loop.

    def _take_on_numbering(self, subscriber: Subscriber) -> None:
        here = self._hub.history.point_at(subscriber.examined.sequence)
        assert here is not None
        own = subscriber.examined
        if (here.stored, here.internal) != (own.stored, own.internal):
            subscriber.renumber(here.stored - own.stored, here.internal - own.internal)

    async def _read_stream(self, after: Point) -> list[Item]:
        """The next page of what is released; none of it when the next message is not released yet.

        Waits while the broker is away, and while a replica that lags gives nothing.
        """
        entries: list[Entry] = []
        is_read = False
        while not is_read:
            try:
                async with self._readers:
                    entries = await self._reader.page(self._hub.epoch, after.sequence)
                    await self._check(after, entries)
                is_read = bool(entries)
            except SourceUnavailable:
                is_read = False
            if not is_read:
                await asyncio.sleep(_PAUSE_S)
        items: list[Item] = []
        point = after
        for entry in entries:
            if entry.sequence > self._hub.position.sequence:
                break
            point = point.after(entry)
            items.append((entry, point))
        return items

    async def _check(self, after: Point, entries: list[Entry]) -> None:
        """Whether a page is of this epoch and whole, asked after it was read.

        A hole is no loss when single messages were removed; it is when retention passed us.
        """
        state = await self._state()
        missing = after.sequence + 1
        for entry in entries:
            if entry.sequence > missing:
                break
            missing += 1
        else:
            if entries:
                return
        if state.first_sequence > missing:
            raise CursorReset("EXPIRED", f"the stream begins at {state.first_sequence}, {missing} was next")

    def _skip_hole(self, subscriber: Subscriber) -> bool:
        """The next message stands behind the hub's position: all up to there were removed singly."""
        edge = self._hub.position
        own = subscriber.examined
        if edge.sequence > own.sequence and not subscriber.gap(own.sequence, edge.sequence):
            return False
        subscriber.examine(own._replace(sequence=edge.sequence, timestamp_ns=edge.timestamp_ns))
        return True

    async def _state(self) -> StreamState:
        """The stream's state, if it is the stream that the hub reads.

        Raises:
            SourceUnavailable: the broker does not answer, or a new epoch began that the hub does not know yet.
        """
        state = await self._reader.state()
        if state.epoch != self._hub.epoch:
            raise SourceUnavailable("a new epoch began just now")
        return state


def _trim(items: list[Item], at: int) -> None:
    """Lets go of what stands far behind ``at``: it is read again when there is room."""
    size = 0
    for index in range(at, len(items)):
        size += len(items[index][0].frame)
        if size > _KEPT_BYTES:
            del items[index + 1 :]
            break
