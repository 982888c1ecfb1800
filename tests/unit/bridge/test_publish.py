"""The publisher on a broker that is a value: fence, marks, when they are due, what is refused."""

from __future__ import annotations

import pytest

from bridge.change import Position
from bridge.errors import EpochLost, Fenced, StreamUnfit, Unreachable
from bridge.outgoing import Outgoing, head_of
from bridge.publish import Publisher
from bridge.stream import StreamState
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import OwnerMark, PositionMark
from tests.unit.bridge.model import EPOCH, LATE, LOST, NEVER, OK, FakeBroker, source_of, state_of

SUBJECT = "zephyr.0.w1.note.n1.row"


def event(lsn: int, index: int, count: int = 0) -> str:
    return head_of({fmt.COMMIT: str(fmt.CommitPlace(lsn, index, count))})


async def opened(broker: FakeBroker, wal_end: int = 0x1000) -> Publisher:
    publisher = Publisher(broker, state_of(broker), source_of(wal_end))
    if not broker.everything:
        await publisher.write_first_position()
    await publisher.read_mark()
    await publisher.begin_term()
    return publisher


async def test_a_term_fences_the_one_before() -> None:
    broker = FakeBroker()
    former = await opened(broker)
    await former.publish([Outgoing(SUBJECT, event(0x10, 0), b"1")])
    later = await opened(broker)
    assert (former.term, later.term) == (1, 2)
    # Both are of this process: the former term is over, and another begins by itself.
    with pytest.raises(Unreachable, match="another term of this bridge"):
        await former.publish([Outgoing(SUBJECT, event(0x10, 1), b"2")])
    with pytest.raises(Unreachable):
        await former.mark(Position(0x10, 0), 0x20, 0)
    with pytest.raises(Unreachable):
        await former.renew_owner()
    assert [message.payload for message in broker.events] == [b"1"]
    assert await later.publish([Outgoing(SUBJECT, event(0x20, 0), b"3")]) == broker.everything[-1].sequence


async def test_another_bridge_took_over() -> None:
    broker = FakeBroker()
    publisher = await opened(broker)
    mark = OwnerMark(epoch=EPOCH, term=9, owner="other:1:ab")
    broker.store(fmt.OWNER_SUBJECT, mark.SerializeToString(), {})
    with pytest.raises(Fenced, match="other:1:ab took over in term 9"):
        await publisher.publish([Outgoing(SUBJECT, event(0x10, 0), b"")])
    assert broker.events == []


async def test_an_owner_mark_that_was_evicted_ends_the_term() -> None:
    broker = FakeBroker()
    publisher = await opened(broker)
    broker.messages = [each for each in broker.messages if each.subject != fmt.OWNER_SUBJECT]
    with pytest.raises(Unreachable, match="left the stream"):
        await publisher.publish([Outgoing(SUBJECT, event(0x10, 0), b"")])
    # The next one counts on from what the position mark says.
    await publisher_marks(broker, term=5)
    assert (await opened(broker)).term == 6


async def publisher_marks(broker: FakeBroker, term: int) -> None:
    mark = PositionMark(epoch=EPOCH, system_id=source_of(0).system_id, timeline=1, term=term, complete=True)
    broker.store(fmt.POSITION_SUBJECT, mark.SerializeToString(), {})


async def test_two_terms_at_once_leave_one_owner() -> None:
    broker = FakeBroker()
    broker.fate = lambda _: OK
    await opened(broker)
    slow = Publisher(broker, state_of(broker), source_of(0x1000))
    broker.fate = lambda _: LATE
    with pytest.raises(Unreachable):
        await slow.begin_term()
    broker.fate = lambda _: OK
    quick = await opened(broker)
    broker.deliver_late()
    assert broker.refusals == 1
    await quick.publish([Outgoing(SUBJECT, event(0x10, 0), b"")])


@pytest.mark.parametrize(
    ("fate", "expected"), [(LOST, Position(0x10, 1, False)), (NEVER, Position(0x10, 0, False))]
)
async def test_the_tail_says_what_became_of_an_answer_that_never_came(fate: str, expected: Position) -> None:
    broker = FakeBroker()
    publisher = await opened(broker)
    # As each term does, before it stores a change.
    await publisher.mark(Position(0, 0), 0x8, 0)
    await publisher.publish([Outgoing(SUBJECT, event(0x10, 0), b"")])
    broker.fate = lambda _: fate
    with pytest.raises(Unreachable):
        await publisher.publish([Outgoing(SUBJECT, event(0x10, 1), b"")])
    broker.fate = lambda _: OK
    assert (await (await opened(broker)).read_tail()).position == expected


async def test_the_tail_begins_at_the_last_mark() -> None:
    broker = FakeBroker()
    publisher = await opened(broker)
    assert (await publisher.read_tail()).position is None
    await publisher.publish([Outgoing(SUBJECT, event(0x10, 0, 1), b"")])
    await publisher.mark(Position(0x10, 0), 0x20, 77)
    tail = await publisher.read_tail()
    assert tail.position == Position(0x10, 0, True)
    assert (tail.mark.wal_lsn, tail.mark.wal_time, tail.mark.term) == (0x20, 77, 1)
    # An event of somebody else has no place in the WAL.
    broker.store("zephyr.0.w1.note.n1.event", b"", {})
    await publisher.publish([Outgoing(SUBJECT, event(0x30, 0), b"")])
    await publisher.publish([Outgoing(SUBJECT, event(0x30, 1, 2), b"")])
    assert (await publisher.read_tail()).position == Position(0x30, 1, True)


async def test_without_a_mark_nothing_is_written() -> None:
    broker = FakeBroker()
    broker.store(SUBJECT, b"", {fmt.COMMIT: "10/0"})
    with pytest.raises(StreamUnfit, match="no position mark left"):
        await opened(broker)
    assert len(broker.everything) == 1


async def test_only_an_empty_stream_takes_the_first_mark() -> None:
    broker = FakeBroker()
    publisher = Publisher(broker, state_of(broker), source_of(0x1000))
    broker.store(SUBJECT, b"", {})
    with pytest.raises(Unreachable):
        await publisher.write_first_position()
    assert len(broker.everything) == 1


@pytest.mark.parametrize(
    ("wal_end", "system_id", "timeline", "says"),
    [
        (0x1000, "1", 1, "was written from Postgres"),
        (0x1F, "", 1, "went backwards"),
        (0x1000, "", 0, "went backwards"),
    ],
)
async def test_another_source_is_refused_before_anything_is_written(
    wal_end: int, system_id: str, timeline: int, says: str
) -> None:
    broker = FakeBroker()
    right = await opened(broker)
    await right.mark(Position(0x10, 0), 0x20, 0)
    count = len(broker.everything)
    source = source_of(wal_end, system_id or source_of(0).system_id, timeline)
    wrong = Publisher(broker, state_of(broker), source)
    with pytest.raises(EpochLost, match=says):
        await wrong.read_mark()
    assert len(broker.everything) == count
    await right.publish([Outgoing(SUBJECT, event(0x30, 0, 1), b"")])


async def test_marks_of_another_epoch() -> None:
    broker = FakeBroker()
    await opened(broker)
    other = Publisher(broker, state_of(broker, "0190a0000000000000bb"), source_of(0x1000))
    with pytest.raises(EpochLost, match="of epoch"):
        await other.read_mark()
    with pytest.raises(EpochLost, match="of epoch"):
        await other.begin_term()


async def test_a_mark_that_is_none() -> None:
    broker = FakeBroker()
    publisher = await opened(broker)
    broker.store(fmt.POSITION_SUBJECT, b"\xff", {})
    with pytest.raises(StreamUnfit, match="cannot be read"):
        await publisher.read_mark()


async def limited(max_bytes: int = 0, max_msgs: int = 0, max_age_s: float = 0) -> Publisher:
    broker = FakeBroker()
    state = StreamState(EPOCH, 0, 0, max_age_s, max_bytes, max_msgs)
    publisher = Publisher(broker, state, source_of(0x1000))
    await publisher.write_first_position()
    await publisher.begin_term()
    await publisher.mark(Position(0, 0), 0x100, 0)
    return publisher


async def test_without_limits_marks_are_never_due_again() -> None:
    publisher = await limited()
    for index in range(50):
        await publisher.publish([Outgoing(SUBJECT, event(0x10, index), b"x" * 1000)])
    assert not publisher.owner_due(1, 1 << 30)
    assert not publisher.position_due(1, 1 << 30)


async def test_marks_are_due_at_a_quarter_of_the_messages() -> None:
    publisher = await limited(max_msgs=40)
    for index in range(8):
        assert not publisher.owner_due(), index
        await publisher.publish([Outgoing(SUBJECT, event(0x10, index), b"")])
    assert publisher.owner_due()
    await publisher.renew_owner()
    assert not publisher.owner_due()
    assert publisher.position_due()


async def test_marks_are_due_at_a_quarter_of_the_bytes_and_marks_count() -> None:
    publisher = await limited(max_bytes=40_000)
    assert not publisher.owner_due(1, 8_000)
    assert publisher.owner_due(1, 10_000)
    # An idle source stores position marks alone: they too push the owner mark out.
    stored = 0
    while not publisher.owner_due():
        await publisher.mark(Position(0, 0), 0x100, 0)
        stored += 1
    assert stored < 20
    assert not publisher.position_due()


async def test_marks_are_due_at_a_quarter_of_the_age() -> None:
    assert (await limited(max_age_s=1e-6)).owner_due()
    assert not (await limited(max_age_s=1e6)).owner_due()


@pytest.mark.parametrize("max_msgs", [8, 9, 12, 50])
async def test_no_number_of_terms_evicts_the_marks(max_msgs: int) -> None:
    broker = FakeBroker(max_msgs)
    for number in range(3 * max_msgs):
        publisher = await opened(broker)
        assert publisher.term == number + 1
        tail = await publisher.read_tail()
        await publisher.mark(tail.position or Position(0, 0), 0x100, 0)
