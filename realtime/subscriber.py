"""One subscription: what comes into its mailbox, from a catch-up or from a lane.

Behind the live edge a catch-up offers what it read, and is refused when there is no room. At the
live edge the mailbox is a place in a lane that others share; who falls too far behind it
leaves the edge, forgets what it had not taken there, and is served again from what was
sent. Who owns it is called when it has something to send, and when it left the live edge: it has no task.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable

from protos.events.v1.stream_pb2 import Closed, FellBehind, Gap, Reset, SourcePosition
from realtime.budget import Budget
from realtime.controls import LAST, Control
from realtime.errors import CursorReset
from realtime.filters import Filter
from realtime.history import Item
from realtime.lane import Lane, LaneKey
from realtime.limits import MailboxLimits
from realtime.mailbox import Mailbox
from realtime.memberships import Memberships
from realtime.point import Point
from realtime.terms import Terms


def _always(_: Subscriber) -> bool:
    return True


def _ignore(_: Subscriber) -> None:
    return


class Subscriber(Mailbox):
    """A subscription between its opening and its end. At the live edge ``examined`` is the hub's own
    position, whatever matched.

    ``on_ready`` is called when there is something to send, and gives False to be called for each event;
    ``on_lag`` when it left the live edge or was stopped.
    """

    def __init__(
        self,
        name: str,
        terms: Terms,
        limits: MailboxLimits,
        on_ready: Callable[[Subscriber], bool] = _always,
        budget: Budget | None = None,
        on_lag: Callable[[Subscriber], None] = _ignore,
    ) -> None:
        super().__init__(name, terms, limits, budget or Budget(limits.max_bytes * 2))
        self.on_lag = on_lag
        self._on_ready = on_ready
        self.filter: Filter = terms.wanted
        self.falls = 0
        """How often it left the live edge because its client read too slowly."""
        self.failure: Exception | None = None
        """What went wrong in matching an event for it."""
        self.voided: Future[CursorReset] | None = None
        """Done, with the reason, once what it reads is not continued; shared with the others of its time."""
        self._gaps_through = 0  # what is missing up to here is said, or queued to be

    def notify(self) -> bool:
        """Says that there is something to send. False: say so for each event."""
        return self._on_ready(self)

    def begin(self, start: Point, epoch: str) -> None:
        """Sets the point that the first frame begins after. Until then frames carry no cursor."""
        self.epoch = epoch
        self.is_begun = True
        self.sent = start
        self._examined = start
        self._gaps_through = start.sequence

    @property
    def lane_key(self) -> LaneKey:
        """Subscriptions with the same key share a lane."""
        return self.filter, self.terms.mask, self.limits

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

    def leave(self) -> None:
        """Leaves the lane with what was not taken from it, as far as the mailboxes' bounds allow."""
        lane = self._lane
        if lane is None:
            return
        lane.leave(self)
        items, self._lane = lane.items_from(self.at), None
        self._examined = lane.edge() if self._own.extend(items) else self._unsent_from()
        self.on_lag(self)

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
        self.on_lag(self)

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
        self.is_begun = False
        self.pages.begin()
        self._own.drop(len(self._own.items))
        self._examined = self.sent
        self._lsn = 0
        self._controls.drop_states()
        self.say(reset, in_turn=False)

    def stop(self) -> None:
        """Takes nothing in any more, and says nothing of it; what is queued stays."""
        self.is_closed = True
        self._note_told()
        if self.pages is not None:
            self.pages.stop()
        self._own.admit()
        self.on_lag(self)

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

    def _insert(self, place: int, control: Control) -> None:
        self._controls.insert(place, control)
        self.notify()

    def _rest(self) -> None:
        lane = self._lane
        if lane is not None and self.at == lane.end and not self._own.items:
            lane.rest(self)

    def _unsent_from(self) -> Point:
        """The point after which nothing is in the mailbox itself."""
        return self._own.items[-1][1] if self._own.items else self.sent

    def narrow(self, wanted: Filter, memberships: Memberships) -> None:
        """Takes a filter that admits less. What is queued and does not match it is dropped, and counts as
        skipped. Not at the live edge: see ``Hub.narrow``."""
        self.filter = wanted
        if self.pages is not None and self.pages.is_under_way:
            # The scan asks for what may not be seen any more: it is begun anew.
            self.pages.void()
            self.pages.narrowed.set()
        self._own.keep(lambda item: wanted.matches(item[0], memberships))

    def forget(self) -> None:
        """Drops the events that are queued, and what would be said behind them: they may not be sent."""
        self._own.drop(len(self._own.items))
        if self.pages is not None:
            self.pages.void()
        self._examined = self.sent
        self._controls.drop_between(self.sent.sequence)
