"""From any point of the past to the live edge.

What the ring still holds is read from it. What is older comes from the stream: a short way in
pages, a long one by a consumer of its own, which costs the broker a third of that. The
subscription is put on the live edge at the very moment when nothing lies between it and
the hub's position, so that there is neither a gap nor a repetition at the seam.

Nothing waits for a client while it holds a place among those that read from the broker, unless
nobody else wants it; and all of them together get one slice of work at a time, as ``pace.py`` gives it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realtime.delivery import Delivery, deliver
from realtime.entry import Entry
from realtime.errors import CursorReset, SourceUnavailable
from realtime.handover import hand_over_entries, hand_over_items
from realtime.history import Item
from realtime.hub import Hub
from realtime.jetstream import StreamReader, StreamState
from realtime.pace import Pace, Past
from realtime.point import Point
from realtime.subscriber import Subscriber

_RING_BATCH = 256
_LONG_WAY = 8192
"""Messages from which on a consumer is worth its making; it has the broker send a few thousand too many."""
_PAUSE_S = 0.5
_PATIENCE_S = 2.0
"""How long a consumer waits for a client that reads slowly, while nobody else waits."""
_READERS = 4


class CatchUp:
    """Brings subscriptions to the live edge; a few at a time read from the broker. The reader's connection
    is best another than the hub's: what is live would stand in line behind what is not."""

    def __init__(self, hub: Hub, reader: StreamReader) -> None:
        self._hub = hub
        self._reader = reader
        self._readers = asyncio.Semaphore(_READERS)
        self._waiting = 0
        self._wanted = asyncio.Event()
        self.pace = Pace()

    async def first_point(self) -> Point:
        """The point before the oldest message that is left.

        Raises:
            SourceUnavailable: the broker does not answer, or a new epoch began that the hub does not know yet.
        """
        state = await self._state()
        return Point(max(0, state.first_sequence - 1), 0, 0, 0, 0)

    async def read(self, after: Point) -> list[Item]:
        """What is released next after a point, from the ring or the stream; none of it at the hub's position, or
        when all up to there was removed singly. The items' points have a numbering of their own.

        Waits while the broker is away.

        Raises:
            CursorReset: what comes next is no longer there.
        """
        hub = self._hub
        if after.sequence >= hub.position.sequence:
            return []
        found = hub.history.read(after.sequence, hub.position.sequence, _RING_BATCH)
        if found is not None:
            return found
        entries: list[Entry] = []
        while not entries:
            try:
                async with self._place():
                    entries = await self._reader.page(hub.epoch, after.sequence)
                    await self._check(after.sequence, entries)
            except SourceUnavailable:
                entries = []
            if not entries:
                await asyncio.sleep(_PAUSE_S)
        items: list[Item] = []
        point = after
        for entry in entries:
            if entry.sequence > hub.position.sequence:
                break
            point = point.after(entry)
            items.append((entry, point))
        return items

    async def run(self, subscriber: Subscriber, reset: asyncio.Future[CursorReset]) -> None:
        """Returns when the subscription is live or closed, or ``reset`` is done: then the hub is another.

        Raises:
            CursorReset: what comes next is no longer there.
        """
        hub = self._hub
        await hub.reached(subscriber.examined.sequence)
        past = Past(self.pace, hub)
        while not (subscriber.is_closed or reset.done()):
            items = hub.history.read(subscriber.examined.sequence, hub.position.sequence, _RING_BATCH)
            if items is None:
                is_through = await self._read_stream(subscriber, past, reset)
            else:
                self._take_on_numbering(subscriber)
                if not items:
                    hub.attach(subscriber)
                    return
                is_through = hand_over_items(subscriber, items, hub.memberships)
                await asyncio.sleep(0)  # A million events to examine are a matter for many turns of the loop.
            if not is_through:
                await subscriber.room()

    def join(self, subscriber: Subscriber) -> bool:
        """Whether it could be put on the live edge at once: the ring holds what is left, and that is little."""
        hub = self._hub
        if subscriber.examined.sequence > hub.position.sequence:
            return False
        for _ in range(2):
            items = hub.history.read(subscriber.examined.sequence, hub.position.sequence, _RING_BATCH)
            if items is None:
                return False
            self._take_on_numbering(subscriber)
            if not items:
                hub.attach(subscriber)
                return True
            if not hand_over_items(subscriber, items, hub.memberships):
                return False
        return False

    def _take_on_numbering(self, subscriber: Subscriber) -> None:
        here = self._hub.history.point_at(subscriber.examined.sequence)
        assert here is not None
        own = subscriber.examined
        if (here.stored, here.internal) != (own.stored, own.internal):
            subscriber.renumber(here.stored - own.stored, here.internal - own.internal)

    async def _read_stream(
        self, subscriber: Subscriber, past: Past, reset: asyncio.Future[CursorReset]
    ) -> bool:
        """Goes on by what is released, some of the way; False when the mailbox is full.

        Waits while the broker is away, and while a replica that lags gives nothing.
        """
        try:
            async with self._place():
                if subscriber.is_closed or reset.done():
                    return True
                way = self._hub.position.sequence - subscriber.examined.sequence
                if way > _LONG_WAY and not self._waiting:
                    return await self._by_consumer(subscriber, past, reset)
                return await self._by_page(subscriber, past, reset)
        except SourceUnavailable:
            await asyncio.sleep(_PAUSE_S)
            return True

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the few places of those that read from the broker; in the order of who came first."""
        self._waiting += 1
        self._wanted.set()
        try:
            await self._readers.acquire()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        try:
            yield
        finally:
            self._readers.release()

    async def _by_page(self, subscriber: Subscriber, past: Past, reset: asyncio.Future[CursorReset]) -> bool:
        hub = self._hub
        after = subscriber.examined
        entries = await self._reader.page(hub.epoch, after.sequence)
        await self._check(after.sequence, entries)
        if subscriber.is_closed or reset.done():
            return True
        if not entries:
            raise SourceUnavailable("nothing was given")
        if entries[0].sequence > hub.position.sequence:
            return self._skip_hole(subscriber)
        at = 0
        while at < len(entries) and not (subscriber.is_closed or reset.done()):
            end = at + self.pace.slice
            if not await self._slice(subscriber, past, entries[at:end]):
                return False
            at = end
        return True

    async def _by_consumer(
        self, subscriber: Subscriber, past: Past, reset: asyncio.Future[CursorReset]
    ) -> bool:
        """Ends where the ring begins, when the client is too slow for it, or when others wait."""
        hub = self._hub
        is_through = True
        is_checked = False

        async def take(entries: list[Entry]) -> bool:
            nonlocal is_through, is_checked
            after = subscriber.examined.sequence
            # What was read in a turn just now is handed over in the same one.
            is_in_turn = is_checked and entries[-1].sequence == after + len(entries)
            if not is_in_turn:
                await self._check(after, entries)
                is_checked = True
            if entries[0].sequence > hub.position.sequence:
                is_through = self._skip_hole(subscriber)
                return True
            while True:
                if subscriber.is_closed or reset.done():
                    return True
                if is_in_turn:
                    is_through = self._hand_over(subscriber, past, entries)
                else:
                    is_through = await self._slice(subscriber, past, entries)
                if is_through:
                    break
                if not await self._room(subscriber):
                    return True
                is_in_turn = False
                entries = [entry for entry in entries if entry.sequence > subscriber.examined.sequence]
            here = subscriber.examined.sequence
            delivery.limit = self.pace.slice
            return bool(self._waiting) or here >= hub.history.floor.sequence or here < entries[-1].sequence

        delivery = Delivery(self._reader.connection, hub.epoch, self.pace.slice, past)
        began = subscriber.examined.sequence
        await deliver(self._reader, delivery, {"opt_start_seq": began + 1}, take, ends_when_idle=True)
        if subscriber.examined.sequence == began and is_through and not subscriber.is_closed:
            raise SourceUnavailable("nothing was given")
        return is_through

    async def _slice(self, subscriber: Subscriber, past: Past, entries: list[Entry]) -> bool:
        async with past:
            is_through = self._hand_over(subscriber, past, entries)
        await asyncio.sleep(0)
        return is_through

    def _hand_over(self, subscriber: Subscriber, past: Past, entries: list[Entry]) -> bool:
        past.handed(len(entries))
        through = self._hub.position.sequence
        return hand_over_entries(subscriber, entries, through, self._hub.memberships)

    async def _room(self, subscriber: Subscriber) -> bool:
        """Whether the mailbox has room again, before others want the place or patience ends."""
        room = asyncio.ensure_future(subscriber.room())
        wanted = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait((room, wanted), timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            return room.done()
        finally:
            for waiter in (room, wanted):
                waiter.cancel()
            await asyncio.gather(room, wanted, return_exceptions=True)

    async def _check(self, after: int, entries: list[Entry]) -> None:
        """Whether a page is of this epoch and whole, asked after it was read.

        A hole is no loss when single messages were removed; it is when retention passed us.
        """
        state = await self._state()
        missing = after + 1
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
        subscriber.examine(own.moved(edge.sequence, edge.timestamp_ns))
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
