"""The boxes of broadcasts against their own account of what came.

Whatever is broadcast, read, left unread, paused, narrowed or closed, in any order: each listener gets in order
what matched, or is told how many it missed; nothing is over its bounds, and nothing waits unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.broadcast.audience import Audience
from realtime.broadcast.box import BroadcastLimits
from realtime.broadcast.cast import Cast
from realtime.broadcast.row import Row
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.memberships import Memberships
from realtime.point import Point
from realtime.subscriber import Subscriber
from realtime.terms import Terms

LIMITS = BroadcastLimits(max_events=4, max_bytes=900, max_connection_bytes=1500)
MAILBOX = MailboxLimits()
A, B = "a", "b"
KINDS = ("note", "workspace")
VERBS = ("typing", "seen")
TERMS = st.builds(
    Terms,
    st.builds(
        Filter,
        st.frozensets(st.sampled_from((A, B)), max_size=2),
        st.frozensets(st.sampled_from(KINDS), max_size=2),
        st.frozensets(st.sampled_from(("x", "y")), max_size=2),
        st.frozensets(st.sampled_from(VERBS), max_size=1),
    ),
    messages=st.sampled_from((None, None, 0)),
)


@dataclass(eq=False)
class Listener:
    """A subscription, and what became of what it wanted: by the numbers of the broadcasts."""

    subscriber: Subscriber
    row: Row
    matched: list[int] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    dropped: int = 0
    forgotten: int = 0

    @property
    def box(self) -> Any:
        return self.row._boxes[self.subscriber]


class Machine(RuleBasedStateMachine):
    """Two connections. ``woken`` are those that were told to look, and did not find nothing since."""

    def __init__(self) -> None:
        super().__init__()
        self.memberships = Memberships()
        self.audience = Audience(lambda: self.memberships)
        self.woken = [False, False]
        self.allowed: set[Subscriber] = set()
        self.rows = [
            Row(self.audience, lambda at=at: self._wake(at), self.allowed.__contains__, LIMITS)  # type: ignore[misc]
            for at in range(2)
        ]
        self.listeners: list[Listener] = []
        self.casts: list[Cast] = []
        self.names = 0

    def _wake(self, at: int) -> None:
        self.woken[at] = True

    @rule(terms=TERMS, at=st.integers(0, 1))
    @precondition(lambda self: len(self.listeners) < 6)
    def open(self, terms: Terms, at: int) -> None:
        self.names += 1
        subscriber = Subscriber(str(self.names), terms, MAILBOX)
        subscriber.begin(Point(7, 0, 0, 0, 0), "e")
        self.allowed.add(subscriber)
        self.rows[at].open(subscriber)
        self.listeners.append(Listener(subscriber, self.rows[at]))

    @rule(
        workspace=st.sampled_from((A, B, fmt.NONE)),
        kind=st.sampled_from(KINDS),
        entity=st.sampled_from(("x", "y")),
        verb=st.sampled_from(VERBS),
        size=st.sampled_from((1, 1, 200, 600, 1200)),
    )
    def broadcast(self, workspace: str, kind: str, entity: str, verb: str, size: int) -> None:
        number = len(self.casts)
        payload = Event(id=str(number), source="x" * size).SerializeToString()
        cast = Cast(fmt.Subject(workspace, kind, entity, "event"), verb, payload)
        self.casts.append(cast)
        for listener in self.listeners:
            subscriber = listener.subscriber
            if not subscriber.is_closed and subscriber.filter.matches(cast.entry, self.memberships):
                listener.matched.append(number)
        self.audience.give(cast)

    @rule(at=st.integers(0, 1), stored=st.integers(0, 5))
    def send(self, at: int, stored: int) -> None:
        """The connection sends so many stored frames, and then what is left."""
        for _ in range(stored):
            frame = self.rows[at].frame_between()
            if frame is not None:
                self._take(frame)
        while (frame := self.rows[at].next_frame()) is not None:
            self._take(frame)
        self.woken[at] = False

    @rule(count=st.integers(1, 3))
    def wake(self, count: int) -> None:
        self.audience.wake(count)

    @rule(data=st.data())
    @precondition(lambda self: self.listeners)
    def grant(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        listener.subscriber.grant(1, None)
        listener.row.look()

    @rule(data=st.data())
    @precondition(lambda self: self.listeners)
    def narrow(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        own = listener.subscriber.filter
        if own.workspaces != {B} and (not own.workspaces or B in own.workspaces):
            wanted = replace(own, workspaces=frozenset((B,)))
            waiting = [cast for cast, _ in listener.box._items]
            listener.forgotten += sum(not wanted.matches(cast.entry, self.memberships) for cast in waiting)
            listener.subscriber.narrow(wanted, self.memberships)

    @rule(data=st.data(), may=st.booleans())
    @precondition(lambda self: self.listeners)
    def ask_the_policy(self, data: st.DataObject, may: bool) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if may:
            self.allowed.add(listener.subscriber)
            listener.row.look()
        else:
            self.allowed.discard(listener.subscriber)

    @rule(data=st.data())
    @precondition(lambda self: self.listeners)
    def close(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        listener.subscriber.close(pb.Closed())
        listener.row.forget(listener.subscriber)
        self.listeners.remove(listener)

    @invariant()
    def bounds_hold(self) -> None:
        for row in self.rows:
            boxes = list(row._boxes.values())
            assert row._budget.used == sum(box.bytes for box in boxes)
            waiting = sum(len(box) for box in boxes)
            assert row._budget.used <= LIMITS.max_connection_bytes or waiting == 1
        for listener in self.listeners:
            box = listener.box
            assert box.bytes == sum(len(item.event) for _, item in box._items)
            assert len(box) <= LIMITS.max_events
            assert box.bytes <= LIMITS.max_bytes or len(box) == 1
        assert len(self.audience) == len(self.listeners)

    @invariant()
    def all_is_accounted_for(self) -> None:
        for listener in self.listeners:
            box = listener.box
            waiting = [int(Event.FromString(cast.entry.payload).id) for cast, _ in box._items]
            if box.filter is not listener.subscriber.filter:
                wanted = listener.subscriber.filter
                waiting = [n for n in waiting if wanted.matches(self.casts[n].entry, self.memberships)]
            known = (
                len(listener.delivered) + listener.dropped + box.dropped + len(waiting) + listener.forgotten
            )
            assert known == len(listener.matched)
            order = listener.delivered + waiting
            assert order == sorted(set(order))
            assert set(order) <= set(listener.matched)

    @invariant()
    def nothing_waits_unnoticed(self) -> None:
        for listener in self.listeners:
            at = self.rows.index(listener.row)
            if listener.box.is_due and listener.subscriber in self.allowed:
                assert self.woken[at] or listener.row in self.audience.sleepers

    def teardown(self) -> None:
        for row in self.rows:
            row.close()
            assert not row._budget.used
        assert not len(self.audience)
        assert not self.audience._groups
        assert not self.audience._index._by_key

    def _take(self, data: bytes) -> None:
        frame = pb.SubscribeResponse.FromString(data)
        assert frame.SerializeToString() == data, "as protobuf writes it"
        (listener,) = [each for each in self.listeners if each.subscriber.name == frame.subscription_id]
        assert listener.subscriber in self.allowed
        assert not frame.cursor
        assert (frame.coverage.after, frame.coverage.through) == (7, 7)
        assert frame.broadcasts.events or frame.broadcasts.dropped
        listener.dropped += frame.broadcasts.dropped
        for event in frame.broadcasts.events:
            number = int(event.id)
            assert listener.subscriber.filter.matches(self.casts[number].entry, self.memberships)
            listener.delivered.append(number)


Machine.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestBroadcasts = Machine.TestCase
