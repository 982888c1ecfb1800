"""One subscription's mailbox: filled by a catch-up or from a lane, emptied by the stream's sender.

Behind the live edge a catch-up offers what it read, and is refused when there is no room. At the
live edge the mailbox is a place in a lane that others share; who falls too far behind it
leaves the edge, forgets what it had not taken there, and is served again from what was
sent. Control frames (ready, caught up, …) take their turn among the events and need no credit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from protos.events.v1.stream_pb2 import Closed, FellBehind, Gap, Reset, SourcePosition
from realtime.backlog import Backlog
from realtime.budget import Budget
from realtime.controls import LAST, Control, Controls
from realtime.credit import Credit
from realtime.entry import Entry
from realtime.filters import Filter
from realtime.frames import FRAME_BYTES, FRAME_MAX_BYTES, EventsFrame, Framed, cut_frame, head, name_field
from realtime.history import Item
from realtime.lane import Lane, LaneKey
from realtime.limits import MailboxLimits
from realtime.memberships import Memberships
from realtime.pages import Pages
from realtime.point import ORIGIN, Point
from realtime.terms import Terms


class Subscriber:
    """A subscription between its opening and its end.

    ``examined`` is the point up to which everything that matches is in the mailbox or was
    sent; ``sent`` is where the last frame ended. Both are of one numbering. At the live edge
    ``examined`` is the hub's own position, whatever matched.
    """

    def __init__(
        self,
        name: str,
        terms: Terms,
        limits: MailboxLimits,
        on_ready: Callable[[], bool] = lambda: True,
        budget: Budget | None = None,
    ) -> None:
        self.name = name
        self.terms = terms
        self.filter: Filter = terms.wanted
        self.credit = Credit(terms.messages, terms.bytes)
        self.limits = limits
        self.epoch = ""
        self.sent = ORIGIN
        self.at = 0
        """The place in the lane that is sent next."""
        self.is_closed = False
        self.lagging = asyncio.Event()
        self.narrowed = asyncio.Event()
        """Its filter became narrower in the midst of a snapshot, which is to be begun anew."""
        self.falls = 0
        """How often it left the live edge because its client read too slowly."""
        self.failure: Exception | None = None
        """What went wrong in matching an event for it."""
        self.notify = on_ready
        self._prefix = name_field(name)
        self._budget = budget or Budget(limits.max_bytes * 2)
        self.pages = None if terms.page_size is None else Pages(terms.page_size, self._budget)
        """Of its snapshots, where it wants one; they come before events."""
        self._examined = ORIGIN
        self._lane: Lane | None = None
        self._own = Backlog(limits, self._budget)
        self._controls = Controls()
        self._gaps_through = 0  # what is missing up to here is said, or queued to be
        self._lsn = 0  # the transaction of the last event that was taken out
        self._told = asyncio.Event()

    def begin(self, start: Point, epoch: str) -> None:
        """Sets the point that the first frame begins after. Until then frames carry no cursor."""
        self.epoch = epoch
        self.sent = start
        self._examined = start
        self._gaps_through = start.sequence

    @property
    def lane_key(self) -> LaneKey:
        """Subscriptions with the same key share a lane."""
        return self.filter, self.terms.mask, self.limits

    @property
    def examined(self) -> Point:
        return self._lane.edge() if self._lane is not None else self._examined

    @property
    def is_live(self) -> bool:
        return self._lane is not None

    def examine(self, point: Point) -> None:
        """Says how far a catch-up is."""
        self._examined = point

    def join(self, lane: Lane) -> None:
        """From now on what matches is taken from the lane."""
        self._lane = lane
        self.at = lane.join(self)
        self.lagging.clear()

    def leave(self) -> None:
        """Leaves the lane with what was not taken from it, as far as the mailboxes' bounds allow."""
        lane = self._lane
        if lane is None:
            return
        lane.leave(self)
        items, self._lane = lane.items_from(self.at), None
        self._examined = lane.edge() if self._own.extend(items) else self._unsent_from()
        self.lagging.set()

    def fall_behind(self, reason: str, source: SourcePosition | None = None) -> None:
        """Leaves the lane and forgets what was not taken from it: a catch-up goes on from what was sent."""
        self._forsake()
        self.falls += 1
        if not self.terms.disconnects:
            self.say(FellBehind(reason=reason, source=source), in_turn=False)

    def fail(self, failure: Exception) -> None:
        """Leaves the lane in the same way, since its filter failed: the subscription's life ends with that."""
        self._forsake()
        self.failure = failure

    def _forsake(self) -> None:
        lane = self._lane
        assert lane is not None
        lane.leave(self)
        self._lane = None
        self._examined = self._unsent_from()
        self.lagging.set()

    def offer(self, item: Item) -> bool:
        """``put``, and says so at once."""
        if not self.put(item):
            return False
        self.notify()
        return True

    def put(self, item: Item) -> bool:
        """Takes an entry that was read back, if there is room. An empty mailbox takes one of any size. Who put
        calls ``notify`` when a run of them is through."""
        entry, point = item
        frame = entry.frame if self.terms.mask is None else self.terms.mask.frame(entry)
        return self._own.put((entry, point, frame))

    def gap(self, after: int, through: int) -> bool:
        """Queues, in its turn, that nothing is stored between two sequences any more, if there is room.
        Who meets it a second time, on another way, does not hear of it again."""
        if through <= self._gaps_through:
            return True
        if len(self._controls) >= self.limits.max_controls:
            self._own.refuse()
            return False
        self._gaps_through = through
        self._insert(after, Gap(after=after, through=through))
        return True

    async def room(self) -> None:
        """Waits until the mailbox is half empty and the connection has room, after an ``offer`` was refused."""
        while not self.is_closed and not await self._own.room():
            pass

    def say(self, control: Control, *, in_turn: bool = True) -> None:
        """Queues a control frame: in its turn behind what was examined until now, or before the next event.

        Not bounded here: who causes them is (``services.stream``)."""
        self._insert(self.examined.sequence if in_turn else self.sent.sequence, control)

    def close(self, closed: Closed) -> None:
        """Queues the end; nothing is taken in after it."""
        if not self.is_closed:
            self._insert(LAST, closed)
            self.stop()

    def reset(self, reset: Reset) -> None:
        """Queues that the position cannot be served, behind what may still be sent."""
        self._insert(LAST, reset)

    def restart(self, reset: Reset) -> None:
        """Drops the events that wait and says that a new snapshot follows. ``told`` comes before ``begin``."""
        assert self.pages is not None
        self.narrowed.clear()
        self.pages.begin()
        self._own.drop(len(self._own.items))
        self._examined = self.sent
        self._lsn = 0
        self._controls.drop_states()
        self.say(reset, in_turn=False)

    async def told(self) -> None:
        """Waits until no control frame waits, or it is closed."""
        while len(self._controls) and not self.is_closed:
            self._told.clear()
            await self._told.wait()

    def stop(self) -> None:
        """Takes nothing in any more, and says nothing of it; what is queued stays."""
        self.is_closed = True
        self._told.set()
        if self.pages is not None:
            self.pages.stop()
        self._own.admit()
        self.lagging.set()

    def grant(self, messages: int | None, size: int | None) -> None:
        """Adds to the credit.

        Raises:
            ArgumentInvalid: an amount is negative.
        """
        self.credit.grant(messages, size)
        if self.has_frames:
            self.notify()

    def renumber(self, stored: int, internal: int) -> None:
        """Moves the counts of every point by the same amount."""
        self.sent = self.sent.renumbered(stored, internal)
        self._examined = self._examined.renumbered(stored, internal)
        self._own.renumber(stored, internal)

    @property
    def has_frames(self) -> bool:
        """Whether a frame may be taken now."""
        following = self._next()
        if following is not None and self.credit.is_open:
            return True
        if self.pages is not None and self.pages.is_due(self.credit):
            return True
        return self._control_is_due(following)

    @property
    def is_paused(self) -> bool:
        """Whether events or items of a snapshot wait for credit."""
        if self.credit.is_open:
            return False
        return self._next() is not None or (self.pages is not None and self.pages.waits)

    @property
    def queued(self) -> int:
        """How many events and control frames wait in the mailbox itself."""
        return len(self._own.items) + len(self._controls)

    @property
    def is_behind(self) -> bool:
        """Whether a progress frame would tell the client something new."""
        return self.sent.sequence < self.examined.sequence

    def is_full_frame(self) -> bool:
        """Whether so much waits that nothing is won by waiting for more."""
        if len(self._controls) or self._own.bytes >= FRAME_BYTES:
            return True
        if self.pages is not None and self.pages.is_under_way:
            return True
        return self._lane is not None and self._lane.bytes_from(self.at, FRAME_BYTES) >= FRAME_BYTES

    def take_entries(self, limit: int) -> tuple[list[Entry], Point]:
        """Up to ``limit`` events for a reader in this process, and the point that they lead to. Control frames
        are left out."""
        entries: list[Entry] = []
        through = self.sent
        self._controls.keep_end()
        self._own.admit()
        while len(entries) < limit and (following := self._next()) is not None:
            entry, through, _ = following
            entries.append(entry)
            if self._own.items:
                self._own.drop(1)
            else:
                self.at += 1
        if self._next() is None:
            through = max(through, self.examined)
            self._controls.clear()
            self._rest()
        self.sent = through
        return entries, through

    def take_frame(self) -> bytes:
        """The next frame, encoded. Only when ``has_frames``."""
        following = self._next()
        if self._control_is_due(following):
            return self._take_control(following)
        if self.pages is not None and self.pages.is_due(self.credit):
            return self._take_page(self.pages)
        return self._take_events()

    def _take_page(self, pages: Pages) -> bytes:
        if pages.waits:
            # Without a cursor: who goes on from the midst of a snapshot would miss the rest of it.
            page = pages.take_page(self.credit)
            return self._prefix + head("", self.sent, self.sent, 0).SerializeToString() + page
        end, through, matched = pages.take_end()
        frame = head(self.epoch, self.sent, through, matched)
        frame.subscription_id = self.name
        frame.snapshot_end.CopyFrom(end)
        self.sent = self._examined = through
        return frame.SerializeToString()

    def _take_control(self, following: Framed | None) -> bytes:
        if following is not None and self._controls.first_place == LAST:
            # It does not wait for credit; when that comes before `closed`, nothing may follow `reset`.
            self.forget()
        through = self.sent if following is not None else max(self.sent, self.examined)
        is_whole = self.pages is None or not self.pages.is_under_way
        frame = head(self.epoch if is_whole else "", self.sent, through, 0)
        frame.subscription_id = self.name
        self._controls.take_into(frame)
        if len(self._controls) == self.limits.max_controls // 2:
            self._own.admit()
        self.sent = through
        self._rest()
        if not len(self._controls):
            self._told.set()
        return frame.SerializeToString()

    def _take_events(self) -> bytes:
        lane = self._lane
        credit = self.credit
        if self._own.items:
            items: Sequence[Framed] = self._own.items
            following = lane.item(self.at) if lane is not None else None
            frame = self._cut(items, following)
            self._own.drop(frame.events)
        else:
            assert lane is not None, "a frame is taken only when there is one"
            if len(self._controls):
                frame = self._cut(lane.items_from(self.at), None)
            else:
                frame = lane.frame(self.at, self.epoch, self.sent, self._lsn)
                if not credit.covers(frame.events, frame.size, frame.last_size):
                    frame = self._cut(lane.items_from(self.at), None)
            self.at += frame.events
        credit.spend(frame.events, frame.size)
        self.sent, self._lsn = frame.through, frame.lsn
        self._rest()
        return self._prefix + frame.rest

    def _cut(self, items: Sequence[Framed], following: Framed | None) -> EventsFrame:
        """A frame of one's own: up to the next control frame's turn, and as far as the credit goes."""
        if not len(self._controls):
            # Nearly always: what fits into a frame is looked at, and not all that waits.
            frame = cut_frame(self.epoch, items, 0, self.sent, self.examined, following, self._lsn)
            if self.credit.covers(frame.events, frame.size, frame.last_size):
                return frame
        place = self._controls.first_place
        count = size = 0
        for entry, _, data in items:
            if count and (entry.sequence > place or size >= FRAME_MAX_BYTES):
                break
            if not self.credit.covers(count + 1, size + len(data), len(data)):
                break
            count += 1
            size += len(data)
        return cut_frame(self.epoch, items, 0, self.sent, self.examined, following, self._lsn, max(1, count))

    def _next(self) -> Framed | None:
        if self._own.items:
            return self._own.items[0]
        return self._lane.item(self.at) if self._lane is not None else None

    def _control_is_due(self, following: Framed | None) -> bool:
        if not len(self._controls):
            return False
        place = self._controls.first_place
        if following is None:
            if place == LAST:
                return self.pages is None or not self.pages.is_due(self.credit)
            # Once it is closed nothing more is examined, and nobody has to wait for that.
            return self.is_closed or self.examined.sequence >= place
        # What ends the subscription does not wait for credit that may never come.
        is_over = self._controls.has_end and not self.credit.is_open
        return following[0].sequence > place or is_over

    def _insert(self, place: int, control: Control) -> None:
        self._controls.insert(place, control)
        self.notify()

    def _unsent_from(self) -> Point:
        """The point after which nothing is in the mailbox itself."""
        return self._own.items[-1][1] if self._own.items else self.sent

    def _rest(self) -> None:
        lane = self._lane
        if lane is not None and self.at == lane.end and not self._own.items:
            lane.rest(self)

    def narrow(self, wanted: Filter, memberships: Memberships) -> None:
        """Takes a filter that admits less. What is queued and does not match it is dropped, and counts as
        skipped. Not at the live edge: see ``Hub.narrow``."""
        self.filter = wanted
        if self.pages is not None and self.pages.is_under_way:
            # The scan asks for what may not be seen any more: it is begun anew.
            self.pages.void()
            self.narrowed.set()
        self._own.keep(lambda item: wanted.matches(item[0], memberships))

    def forget(self) -> None:
        """Drops the events that are queued, and what would be said behind them: they may not be sent."""
        self._own.drop(len(self._own.items))
        if self.pages is not None:
            self.pages.void()
        self._examined = self.sent
        self._controls.drop_between(self.sent.sequence)

    def release(self) -> None:
        """Gives back what the connection's budget was charged for; the subscription is over."""
        self._own.release()
        if self.pages is not None:
            self.pages.release()
