"""Hub, mailbox and catch-up against a plain list.

Whatever is published, read, left unread, evicted, begun anew or closed, in any order: each
subscription gets exactly the matching run of the stream from its start, each event once,
or is told why not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime import catchup
from realtime.catchup import CatchUp
from realtime.entry import Entry
from realtime.errors import CursorReset, RealtimeError
from realtime.filters import Filter
from realtime.hub import Hub, HubLimits
from realtime.jetstream import StreamReader
from realtime.limits import MailboxLimits
from realtime.point import Point
from realtime.source import Source
from realtime.subscriber import Subscriber
from realtime.subscription import Feed, end, keep_up
from realtime.terms import Terms
from tests.property.hub_model import A, B, Broker, Listener, LiveSource, wants

HUB = HubLimits(ring_entries=12, ring_bytes=2000, whole_transaction_events=5, held_entries=20)
MAILBOX = MailboxLimits(max_events=4, max_bytes=900, max_controls=4)
WORKSPACES = (A, B, fmt.NONE)
KINDS = ("note", "membership")
ENTITIES = ("x", "y")
VERBS = ("made", "updated", "deleted")
TURNS = 40

WANTED = st.builds(
    Filter,
    st.frozensets(st.sampled_from((A, B)), max_size=2),
    st.frozensets(st.sampled_from(KINDS), max_size=2),
    st.frozensets(st.sampled_from(ENTITIES), max_size=2),
    st.frozensets(st.sampled_from(VERBS), max_size=2),
    st.frozensets(st.sampled_from(("title", "body")), max_size=1),
)
TERMS = st.builds(
    Terms,
    WANTED,
    disconnects=st.sampled_from((False, False, True)),
    messages=st.sampled_from((None, None, 0, 1, 5)),
    bytes=st.sampled_from((None, None, 0, 1, 600)),
)
MESSAGE = st.one_of(
    st.tuples(
        st.sampled_from(WORKSPACES),
        st.sampled_from(KINDS),
        st.sampled_from(ENTITIES),
        st.sampled_from(VERBS),
        st.sampled_from(("", "title", "body", "title,body")),
    ),
    st.tuples(
        st.just(fmt.NONE), st.sampled_from(KINDS), st.just(fmt.NONE), st.just(fmt.TRUNCATED), st.just("")
    ),
    st.sampled_from(("mark", "foreign", "producer", "published", *fmt.ROW_VERBS)),
)


class Machine(RuleBasedStateMachine):
    """Every rule ends after some turns of the event loop; nothing else makes progress."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pause, catchup._PAUSE_S = catchup._PAUSE_S, 0.0
        self.broker = Broker()
        self.hub = Hub(HUB)
        reader = cast("StreamReader", self.broker)
        self.feed = Feed(self.hub, cast("Source", LiveSource(self.broker)), reader, CatchUp(self.hub, reader))
        self.listeners: list[Listener] = []
        self.cursors: list[bytes] = []
        self.taken = 0
        self.epochs = 0
        self.lsn = 0

    def run(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        async def turn() -> None:
            if work is not None:
                await work
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    @initialize(preload=st.integers(0, 4))
    def begin(self, preload: int) -> None:
        self._new_epoch()
        for _ in range(preload):
            self.broker.append((A, "note", "x", "made", ""), None, 1)
        self.taken = len(self.broker.all)
        self.hub.begin(self.broker.epoch, Point(self.broker.last, self.broker.last, 0, 0, 0))

    @rule(
        messages=st.lists(MESSAGE, min_size=1, max_size=14),
        hole=st.sampled_from((1, 1, 1, 2, 5)),
        cut=st.booleans(),
    )
    def publish(self, messages: list[Any], hole: int, cut: bool) -> None:
        """A transaction with what others published in between; ``cut``: its end is still to come."""
        rows = [at for at, message in enumerate(messages) if isinstance(message, tuple)]
        self.lsn += 1
        for at, message in enumerate(messages):
            place = None
            if isinstance(message, tuple):
                is_last = at == rows[-1] and not cut
                place = fmt.CommitPlace(self.lsn, rows.index(at), len(rows) if is_last else 0)
            self.broker.append(message, place, hole if at == 0 else 1)

    @rule(count=st.integers(1, 30))
    def take_in(self, count: int) -> None:
        entries = self.broker.all[self.taken : self.taken + count]
        self.taken += len(entries)
        self.hub.take(entries)
        self.run()

    @rule(
        terms=TERMS, same=st.booleans(), where=st.sampled_from(("live", "earliest", "after")), data=st.data()
    )
    @precondition(lambda self: len(self.listeners) < 6)
    def subscribe(self, terms: Terms, same: bool, where: str, data: st.DataObject) -> None:
        """``same``: with a filter that another subscription has."""
        if same and self.listeners:
            terms = replace(terms, wanted=data.draw(st.sampled_from(self.listeners)).subscriber.filter)
        start = pb.Start(live=pb.LiveStart())
        if where == "earliest":
            start = pb.Start(earliest=pb.EarliestStart())
        elif where == "after" and self.cursors:
            cursor = data.draw(st.sampled_from(self.cursors))
            start = pb.Start(after=pb.AfterStart(cursor=cursor))
        listener = Listener(Subscriber("s", terms, MAILBOX), start, self.broker.all)
        listener.messages, listener.bytes = terms.messages, terms.bytes
        self.listeners.append(listener)

        async def begin() -> None:
            listener.task = asyncio.ensure_future(self._follow(listener))

        self.run(begin())

    @rule(data=st.data(), frames=st.integers(1, 8))
    @precondition(lambda self: self.listeners)
    def drain(self, data: st.DataObject, frames: int) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        for _ in range(frames):
            if listener.subscriber.has_frames:
                self._take_frame(listener)
        self.run()

    @rule(data=st.data(), messages=st.integers(0, 6), size=st.sampled_from((0, 1, 500)))
    @precondition(lambda self: self.listeners)
    def grant(self, data: st.DataObject, messages: int, size: int) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if "closed" not in listener.said:  # the service knows it no longer then
            listener.grant(messages, size)
        self.run()

    @rule(data=st.data())
    @precondition(lambda self: self.listeners)
    def narrow(self, data: st.DataObject) -> None:
        """It may see less from now on: what is queued of the rest must not be sent."""
        subscriber = data.draw(st.sampled_from(self.listeners)).subscriber
        own = subscriber.filter.workspaces
        if subscriber.epoch and own != {B} and (not own or B in own):
            self.hub.narrow(subscriber, replace(subscriber.filter, workspaces=frozenset((B,))))
            if not subscriber.is_closed:
                subscriber.say(pb.ScopeChanged(lost_workspace_ids=[A]), in_turn=False)
        self.run()

    @rule()
    def turn(self) -> None:
        self.run()

    @rule(data=st.data())
    @precondition(lambda self: self.listeners)
    def close(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        self.hub.detach(listener.subscriber)
        listener.subscriber.close(pb.Closed())
        assert listener.task is not None
        listener.task.cancel()
        self.run()

    @rule(count=st.integers(1, 20))
    def expire(self, count: int) -> None:
        """Retention takes the oldest; what the hub had not read ends everybody."""
        left = [entry for entry in self.broker.all if entry.sequence >= self.broker.first]
        gone = left[:count]
        if gone:
            self.broker.first = gone[-1].sequence + 1
        if self.broker.first > self.hub.head + 1:
            while (
                self.taken < len(self.broker.all) and self.broker.all[self.taken].sequence < self.broker.first
            ):
                self.taken += 1
            self.hub.begin(self.broker.epoch, Point(self.broker.first - 1, 0, 0, 0, 0))
            self.hub.reset(CursorReset("EXPIRED", "retention passed the reader"))
        self.run()

    @rule(known=st.booleans())
    def change_epoch(self, known: bool) -> None:
        """The stream is another; for some turns the hub may not know it yet."""
        self._new_epoch()
        self.broker.append((A, "note", "x", "made", ""), None, 1)
        if not known:
            self.run()
        self.taken = 0
        self.hub.begin(self.broker.epoch, Point(0, 0, 0, 0, 0))
        self.hub.reset(CursorReset("EPOCH_CHANGED", "a new epoch began"))
        self.run()

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.hub.history) <= HUB.ring_entries
        assert sum(len(entry.frame) for entry, _ in self.hub.history._items) <= HUB.ring_bytes
        assert len(self.hub._held) <= HUB.held_entries
        for listener in self.listeners:
            own = listener.subscriber._own.items
            assert len(own) <= 2 * MAILBOX.max_events
            size = sum(len(frame) for _, _, frame in own)
            assert size == listener.subscriber._own.bytes
        for lane in self.hub._lanes.values():
            assert len(lane._items) <= MAILBOX.max_events
            size = sum(len(frame) for _, _, frame in lane._items)
            assert size == lane.bytes == lane.bytes_from(lane.base)
            assert lane.bytes_from(lane.end) == 0
            assert len(lane._items) <= 1 or size <= MAILBOX.max_bytes
            assert lane.members, "a lane without members is no lane"

    def teardown(self) -> None:
        try:
            for listener in self.listeners:
                self._read_to_the_end(listener)
        finally:
            catchup._PAUSE_S = self.pause
            for listener in self.listeners:
                if listener.task is not None:
                    listener.task.cancel()
            self.run()
            self.loop.close()

    def _read_to_the_end(self, listener: Listener) -> None:
        subscriber = listener.subscriber
        if "closed" in listener.said:
            return
        listener.grant(1_000_000, 1_000_000_000)
        for _ in range(1000):
            self.run()
            if not subscriber.has_frames:
                break
            self._take_frame(listener)
        assert not subscriber.has_frames
        if listener.said[-1:] == ["closed"]:
            return
        assert subscriber.is_live or self.hub.position.sequence < listener.begin
        assert subscriber.examined.sequence == max(self.hub.position.sequence, listener.begin)
        # Each frame was held against all that its interval holds, and they join. What is behind the last one?
        left = [
            entry
            for entry in listener.history
            if listener.through < entry.sequence <= self.hub.position.sequence
            and wants(subscriber.filter, entry)
        ]
        assert not left
        assert listener.missing == listener.missed(max(self.hub.position.sequence, listener.begin))

    async def _follow(self, listener: Listener) -> None:
        subscriber = listener.subscriber
        try:
            point = await self.feed.start_point(listener.start)
        except RealtimeError as exc:
            await end(subscriber, exc, self.feed)
            return
        if subscriber.is_closed:
            return
        listener.begin = listener.through = point.sequence
        listener.history = self.broker.all
        subscriber.begin(point, self.hub.epoch)
        subscriber.say(pb.Ready(epoch=self.hub.epoch))
        await keep_up(subscriber, self.feed)

    def _take_frame(self, listener: Listener) -> None:
        frame = pb.SubscribeResponse.FromString(listener.subscriber.take_frame())
        kind = str(frame.WhichOneof("response"))
        assert "closed" not in listener.said
        if "reset" in listener.said:
            assert kind == "closed"
        listener.said.append(kind)
        if listener.begin < 0:
            assert kind in ("reset", "closed")
            return
        assert listener.said[0] in ("ready", "closed")
        if frame.closed.error.code == codes.ERROR_CODE_RESOURCE_EXHAUSTED:
            assert listener.subscriber.terms.disconnects, "it asked for it"
        assert not (kind == "fell_behind" and listener.subscriber.terms.disconnects)
        listener.spend(frame)
        if kind == "gap":
            listener.hear_gap(frame.gap)
        for event in frame.events.events:
            assert event.sequence > listener.last
            listener.last = event.sequence
        coverage = frame.coverage
        assert coverage.after == listener.through
        listener.through = coverage.through
        examined = [e for e in listener.history if coverage.after < e.sequence <= coverage.through]
        matching = [e for e in examined if wants(listener.subscriber.filter, e)]
        assert [event.sequence for event in frame.events.events] == [e.sequence for e in matching]
        assert coverage.matched == len(matching)
        assert coverage.internal == sum(e.is_internal for e in examined)
        assert coverage.matched + coverage.skipped + coverage.internal == len(examined)
        self.cursors.append(frame.cursor)
        self.cursors += [event.cursor for event in frame.events.events]
        del self.cursors[:-20]
        self._check_transactions(listener, matching, is_open=frame.events.transaction_open)

    def _check_transactions(self, listener: Listener, matching: list[Entry], *, is_open: bool) -> None:
        if listener.history is not self.broker.all:
            return
        taken = self.broker.all[: self.taken]
        last = None
        for entry in matching:
            if entry.commit is None:
                continue
            assert entry.commit.lsn not in listener.over, "its transaction was said to be over"
            last = entry.commit.lsn
            places = [at for at, e in enumerate(self.broker.all) if e.commit and e.commit.lsn == last]
            end_entry = self.broker.all[places[-1]]
            is_small = places[-1] - places[0] < HUB.whole_transaction_events
            if is_small and end_entry.commit and end_entry.commit.count:
                assert end_entry in taken, "shown before it was whole"
        if last is not None and not is_open:
            listener.over.add(last)
        if is_open and last is not None:
            ends = [e for e in taken if e.commit and e.commit.lsn == last and e.commit.count]
            shown = max(e.sequence for e in matching if e.commit and e.commit.lsn == last)
            assert all(e.sequence > shown for e in ends), "nothing of it is to come"

    def _new_epoch(self) -> None:
        self.epochs += 1
        self.broker.begin(f"{self.epochs:020x}")
        self.taken = 0


Machine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestHub = Machine.TestCase
