"""The pump between a source and a broker that are values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.change import Begin, LogicalMessage, Message, Position
from bridge.errors import EventTooLarge, ProtocolError
from bridge.ledger import Ledger
from bridge.publish import Publisher
from bridge.pump import InFlight, Pump
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark
from tests.unit.bridge.model import (
    NOTES,
    FakeBroker,
    FakeSource,
    SourceEnded,
    insert,
    make_encoder,
    move,
    source_of,
    state_of,
)
from tests.unit.bridge.wal_bytes import keepalive, message, xlog_data

SELDOM_S = 1e9


class Frames:
    """Reads that are given, then the end."""

    def __init__(self, *reads: list[bytes]) -> None:
        self._reads = list(reads)
        self.confirmed: list[int] = []

    async def read(self, timeout_s: float) -> list[bytes]:
        if not self._reads:
            raise SourceEnded("the end")
        return self._reads.pop(0)

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        self.confirmed.append(lsn)


async def pumped(
    broker: FakeBroker,
    frames: Frames | FakeSource,
    position: Position | None = None,
    mark_s: float = SELDOM_S,
    wal_lsn: int = 0x100,
    limit: int = 1 << 20,
    on_message: Callable[[LogicalMessage], None] | None = None,
) -> Ledger:
    """Pumps to the end of the frames."""
    publisher = Publisher(broker, state_of(broker), source_of(0x10_000))
    if not broker.everything:
        await publisher.write_first_position()
    await publisher.begin_term()
    await publisher.mark(position or Position(0, 0), wal_lsn, 0)
    ledger = Ledger(0)
    ledger.stored(wal_lsn, 0)
    pump = Pump(frames, make_encoder(limit), publisher, ledger, position, wal_lsn, mark_s)
    pump.sequencer.on_message = on_message
    with pytest.raises(SourceEnded):
        await pump.run()
    return ledger


def transaction(lsn: int, *changes: Message, whole: bool = True) -> list[bytes]:
    frames = [xlog_data(message(NOTES)), xlog_data(message(Begin(lsn, lsn, 1)))]
    frames += [xlog_data(message(change)) for change in changes]
    # Commit flags, commit LSN, end LSN, time.
    end = b"C\0" + lsn.to_bytes(8, "big") + (lsn + 0x30).to_bytes(8, "big") + bytes(8)
    return [*frames, xlog_data(end)] if whole else frames


def stored(broker: FakeBroker) -> list[str]:
    return [each.headers[fmt.COMMIT] for each in broker.events]


def last_mark(broker: FakeBroker) -> PositionMark:
    marks = [each for each in broker.everything if each.subject == fmt.POSITION_SUBJECT]
    return PositionMark.FromString(marks[-1].payload)


async def test_the_last_message_alone_has_the_count() -> None:
    broker = FakeBroker()
    await pumped(broker, Frames(transaction(0x200, insert("a"), move("b"), insert("c"))))
    assert stored(broker) == ["200/0", "200/1", "200/2", "200/3/4"]


async def test_a_message_is_held_until_what_follows_is_seen() -> None:
    broker = FakeBroker()
    await pumped(broker, Frames(transaction(0x200, insert("a"), insert("b"), whole=False)))
    assert stored(broker) == ["200/0"]


async def test_what_is_in_flight() -> None:
    broker = FakeBroker()
    publisher = Publisher(broker, state_of(broker), source_of(0x10_000))
    await publisher.write_first_position()
    await publisher.begin_term()
    seen: list[tuple[InFlight, int]] = []
    mid = [
        *transaction(0x200, insert("a"), insert("b"), LogicalMessage("zephyr.x", b"", 1, True), whole=False)
    ]
    pump = Pump(Frames(mid), make_encoder(), publisher, Ledger(0), None, 0x100, SELDOM_S)
    assert pump.in_flight == InFlight(0, 0, 0, 0)
    pump.sequencer.on_message = lambda _: seen.append((pump.in_flight, pump.stored_lsn))
    with pytest.raises(SourceEnded):
        await pump.run()
    assert [(each.messages, each.commit_lsn, each.index, lsn) for each, lsn in seen] == [(2, 0x200, 2, 0x100)]
    assert seen[0][0].bytes > 0
    # The last message of an open transaction is held until what follows is seen.
    assert (pump.in_flight.messages, pump.in_flight.bytes) == (1, 0)


async def test_logical_messages_are_handed_on_and_take_no_index() -> None:
    broker, heard = FakeBroker(), list[LogicalMessage]()
    one, two = LogicalMessage("zephyr.a", b"1", 0x1F0, True), LogicalMessage("zephyr.b", b"2", 0x1F8, False)
    frames = Frames(transaction(0x200, insert("a"), one, insert("b"), two), transaction(0x300, one))
    await pumped(broker, frames, on_message=heard.append, mark_s=0)
    assert heard == [one, two, one]
    assert stored(broker) == ["200/0", "200/1/2"]
    assert last_mark(broker).wal_lsn == 0x330
    await pumped(FakeBroker(), Frames(transaction(0x200, one)))


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (Position(0x200, 0, False), ["200/1", "200/2/3", "300/0/1"]),
        (Position(0x200, 1, False), ["200/2/3", "300/0/1"]),
        (Position(0x200, 2, True), ["300/0/1"]),
        (Position(0x300, 0, True), []),
        (None, ["200/0", "200/1", "200/2/3", "300/0/1"]),
    ],
)
async def test_what_is_stored_already_is_skipped(position: Position | None, expected: list[str]) -> None:
    broker = FakeBroker()
    frames = Frames(transaction(0x200, insert("a"), move("b")), transaction(0x300, insert("c")))
    await pumped(broker, frames, position)
    assert stored(broker) == expected


async def test_marks_say_what_is_stored_and_how_far_the_source_was_read() -> None:
    broker = FakeBroker()
    await pumped(broker, Frames(transaction(0x200, insert("a"))), mark_s=0)
    mark = last_mark(broker)
    assert (mark.commit_lsn, mark.index, mark.complete, mark.wal_lsn) == (0x200, 0, True, 0x230)
    # In the midst of a transaction the source was read no further than to the one before.
    await pumped(
        broker,
        Frames(transaction(0x300, insert("a"), insert("b"), whole=False), [keepalive(0x900)]),
        Position(0x200, 0),
        mark_s=0,
        wal_lsn=0x230,
    )
    mark = last_mark(broker)
    assert (mark.commit_lsn, mark.index, mark.complete, mark.wal_lsn) == (0x300, 0, False, 0x230)


async def test_an_idle_source_moves_on_by_keepalives() -> None:
    broker = FakeBroker()
    frames = Frames([keepalive(0x500, reply_requested=True)], [keepalive(0x600, reply_requested=True)])
    ledger = await pumped(broker, frames, mark_s=0)
    assert last_mark(broker).wal_lsn == 0x600
    assert ledger.confirmable(1e12) == 0x600
    # What a keepalive says is confirmed only once a mark has it.
    assert frames.confirmed == [0x100, 0x500]


async def test_nothing_is_confirmed_without_a_mark() -> None:
    broker = FakeBroker()
    frames = Frames(transaction(0x200, insert("a")), [keepalive(0x500, reply_requested=True)])
    ledger = await pumped(broker, frames)
    assert frames.confirmed == [0x100]
    assert ledger.confirmable(1e12) == 0x100


async def test_a_long_transaction_is_marked_on_the_way() -> None:
    broker = FakeBroker()
    await pumped(broker, Frames(transaction(0x200, *[insert("a")] * 2500)))
    assert len(stored(broker)) == 2500
    marks = [
        PositionMark.FromString(m.payload) for m in broker.everything if m.subject == fmt.POSITION_SUBJECT
    ]
    assert [mark.complete for mark in marks][2:] == [False, False]
    assert all(mark.wal_lsn == 0x100 for mark in marks[1:])


@pytest.mark.parametrize("max_msgs", [8, 10, 50])
async def test_marks_outlive_a_limit(max_msgs: int) -> None:
    broker = FakeBroker(max_msgs)
    await pumped(broker, Frames(transaction(0x200, *[insert("a")] * 300), transaction(0x900, insert("b"))))
    assert len(stored(broker)) == 301
    assert broker.refusals == 0
    subjects = {each.subject for each in broker.messages}
    assert {fmt.OWNER_SUBJECT, fmt.POSITION_SUBJECT} <= subjects


async def test_what_cannot_be_stored_stops_everything() -> None:
    broker = FakeBroker()
    with pytest.raises(EventTooLarge):
        await pumped(broker, Frames(transaction(0x200, insert("a" * 3000), insert("b"))), limit=1024)
    assert stored(broker) == []


@pytest.mark.parametrize("data", [b"", b"x", b"w", b"k\0", xlog_data(b"Z"), xlog_data(b"B\0")])
async def test_bytes_that_are_none_of_the_protocol(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        await pumped(FakeBroker(), Frames([data]))
