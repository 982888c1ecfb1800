"""Pump and publisher on a broker and a source that fail at every step.

Whatever is lost, late or repeated between terms, and from whatever confirmed position the
source begins again, and whatever others publish between, the stream has each (LSN, index) exactly
once and in order, and nothing is confirmed that is not in it.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.change import Message, Position
from bridge.errors import Unreachable
from bridge.ledger import Ledger
from bridge.publish import Publisher
from bridge.pump import Pump
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark
from tests.unit.bridge.model import (
    LATE,
    LOST,
    NEVER,
    OK,
    FakeBroker,
    FakeSource,
    SourceEnded,
    domain_event,
    insert,
    make_encoder,
    move,
    source_of,
    state_of,
)

NEVER_BY_TIME_S = 1e9


def grouped(frames: list[bytes], sizes: list[int]) -> list[list[bytes]]:
    """Frames in reads of the given sizes, over and over; 0 is a read in which nothing came."""
    reads: list[list[bytes]] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(frames):
            return reads
        reads.append(frames[at : at + size])
        at += size
    raise AssertionError("sizes are endless")


async def run_term(
    broker: FakeBroker, source: FakeSource, start: int, sizes: list[int], mark_s: float
) -> None:
    """A term as ``bridge.term`` opens it, to its fault or to the end of the frames."""
    publisher = Publisher(broker, state_of(broker), source_of(source.wal_end))
    if not broker.everything:
        await publisher.write_first_position()
    await publisher.read_mark()
    await publisher.begin_term()
    tail = await publisher.read_tail()
    await publisher.mark(tail.position or Position(0, 0), max(tail.mark.wal_lsn, 0x100), tail.mark.wal_time)
    ledger = Ledger(0)
    ledger.stored(max(tail.mark.wal_lsn, 0x100), 0)
    source.start(start, lambda frames: grouped(frames, sizes))
    pump = Pump(
        source, make_encoder(), publisher, ledger, tail.position, max(tail.mark.wal_lsn, 0x100), mark_s
    )
    try:
        await pump.run()
    finally:
        # The feedback task's part: it confirms on a clock of its own, whatever the pump does.
        await source.confirm(ledger.confirmable(time.monotonic()))


def stored_up_to(broker: FakeBroker, source: FakeSource) -> int:
    """Where the first transaction ends that the stream does not hold whole; begins there."""
    have = {message.headers[fmt.COMMIT] for message in broker.events}
    end = 0x100
    for begin, changes, commit in source.transactions:
        if not set(places(begin.commit_lsn, changes)) <= have:
            return end
        end = commit.end_lsn
    return 2**64


def places(lsn: int, changes: list[Message]) -> list[str]:
    """The ``Zephyr-Commit`` headers of a transaction; a move is two."""
    count = sum(2 if change in MOVES else 1 for change in changes)
    return [f"{lsn:X}/{index}" + (f"/{count}" if index == count - 1 else "") for index in range(count)]


INSERTS = [insert(f"n{number}") for number in range(3)]
MOVES = [move(f"n{number}") for number in range(3)]
EVENTS = [domain_event(f"n{number}") for number in range(2)]
CHANGES = st.lists(st.sampled_from([*INSERTS, *MOVES, *EVENTS]), max_size=5)
# A fault at any step: opening a term takes three or four messages.
FATES = st.builds(
    lambda fine, fault: [OK] * fine + [fault], st.integers(0, 25), st.sampled_from((LOST, LATE, NEVER))
)
SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(any)


class BridgeMachine(RuleBasedStateMachine):
    """Commits, terms with faults, and messages that arrive after their term."""

    @initialize(max_msgs=st.sampled_from((0, 0, 8, 11)))
    def begin(self, max_msgs: int) -> None:
        self.broker = FakeBroker(max_msgs)
        self.source = FakeSource()
        self.source.known_up_to = lambda: stored_up_to(self.broker, self.source)
        self.persisted = 0

    @rule(changes=CHANGES)
    def commit(self, changes: list[Message]) -> None:
        self.source.commit(changes)

    @rule(
        work=st.lists(CHANGES, min_size=1, max_size=4),
        fates=FATES,
        back=st.integers(0, 3),
        sizes=SIZES,
        mark_s=st.sampled_from((0.0, NEVER_BY_TIME_S)),
    )
    def term(
        self, work: list[list[Message]], fates: list[str], back: int, sizes: list[int], mark_s: float
    ) -> None:
        for changes in work:
            self.source.commit(changes)
        answers = iter(fates)
        # After its fates a term is killed: nothing more of it arrives.
        self.broker.fate = lambda _subject: next(answers, NEVER)
        self._run(back, sizes, mark_s)

    @rule(sizes=SIZES)
    def term_without_faults(self, sizes: list[int]) -> None:
        self.broker.fate = lambda _subject: OK
        self._run(0, sizes, 0.0)

    @rule(count=st.integers(1, 4))
    def others_publish(self, count: int) -> None:
        # What others store while no bridge runs may evict its marks, and then it is over.
        if self.broker.everything and not self.broker.max_msgs:
            for _ in range(count):
                self.broker.store("zephyr.0.w1.note.n1.event", b"", {fmt.VERB: "shared"})
            self.broker.store("zephyr._mark.0.producer.p", b"", {})

    @rule()
    def late_messages_arrive(self) -> None:
        self.broker.deliver_late()

    @invariant()
    def stream_is_a_prefix(self) -> None:
        if not hasattr(self, "broker"):
            return
        found = [message.headers[fmt.COMMIT] for message in self.broker.events]
        wanted = self._wanted()
        assert found == wanted[: len(found)]
        ids = [message.headers[fmt.ID] for message in self.broker.events]
        assert len(set(ids)) == len(ids)

    def teardown(self) -> None:
        if not hasattr(self, "broker"):
            return
        # Two terms: the first may be refused by a late message that arrives after it looked.
        self.broker.deliver_late()
        self.broker.fate = lambda _subject: OK
        self._run(3, [2, 0, 5], 0.0)
        assert [message.headers[fmt.COMMIT] for message in self.broker.events] == self._wanted()
        assert self.source.confirmed == self.source.wal_end
        mark = [m for m in self.broker.everything if m.subject == fmt.POSITION_SUBJECT][-1]
        assert PositionMark.FromString(mark.payload).wal_lsn == self.source.wal_end

    def _run(self, back: int, sizes: list[int], mark_s: float) -> None:
        # The server may have forgotten the last confirmations, when it crashed: any earlier one will do.
        ends = [0x100, *(commit.end_lsn for _, _, commit in self.source.transactions)]
        earlier = [end for end in ends if end <= self.source.confirmed]
        start = earlier[max(0, len(earlier) - 1 - back)] if earlier else 0
        try:
            asyncio.run(run_term(self.broker, self.source, start, sizes, mark_s))
        except SourceEnded:
            pass
        except Unreachable as exc:
            assert exc.message  # noqa: PT017 - a fault, or a term that another one's message refused

    def _wanted(self) -> list[str]:
        return [
            place
            for begin, changes, _ in self.source.transactions
            for place in places(begin.commit_lsn, changes)
        ]


TestBridge = BridgeMachine.TestCase
TestBridge.settings = settings(max_examples=120, stateful_step_count=15)


@given(st.lists(CHANGES, min_size=1, max_size=5), SIZES, SIZES)
@settings(max_examples=50)
def test_however_frames_are_grouped_the_messages_are_the_same(
    transactions: list[list[Message]], one: list[int], other: list[int]
) -> None:
    found = []
    for sizes in ([1], one, other):
        broker, source = FakeBroker(), FakeSource()
        for changes in transactions:
            source.commit(changes)
        try:
            asyncio.run(run_term(broker, source, 0, sizes, NEVER_BY_TIME_S))
        except SourceEnded:
            found.append([(m.subject, m.headers, m.payload) for m in broker.events])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == sum(len(places(0, changes)) for changes in transactions)
