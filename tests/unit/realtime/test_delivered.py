"""What a consumer delivers is taken in order, and nothing after a gap counts."""

from __future__ import annotations

import pytest

from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Events
from realtime.delivered import Delivered

EPOCH = "0190a0000000000000aa"
SUBJECT = b"zephyr.0.w.note.n.row"
HEADERS = b"NATS/1.0\r\nZephyr-Verb: made\r\nStatus: 100\r\n\r\n"
PAYLOAD = Event(id="1").SerializeToString()
STALLED = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Consumer-Stalled: $JS.FC.x\r\n\r\n"
IDLE = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: 9\r\n\r\n"
MARK = b"NATS/1.0 100 FlowControl Request\r\n\r\n"


def delivered() -> Delivered:
    return Delivered(EPOCH, lambda: None)


def put(into: Delivered, *numbers: int) -> None:
    into.sink.messages += [
        (SUBJECT, b"$JS.ACK.s.c.1.%d.%d.%d.0" % (number + 100, number, number * 10), HEADERS, PAYLOAD)
        for number in numbers
    ]


def control(into: Delivered, headers: bytes, reply: bytes = b"") -> None:
    into.sink.messages.append((b"_INBOX.x", reply, headers, b""))


@pytest.mark.parametrize("head", [b"$JS.ACK", b"$JS.ACK.domain.hash"])
@pytest.mark.parametrize("tail", [b"", b".random"])
def test_the_reply_subject_says_where_it_stands(head: bytes, tail: bytes) -> None:
    into = delivered()
    reply = head + b".s.c.1.7.1.70.5"
    into.sink.messages.append((SUBJECT, reply + (tail if b"domain" in head else b""), HEADERS, PAYLOAD))
    (entry,) = into.take(10)
    assert (entry.sequence, entry.timestamp_ns, entry.verb) == (7, 70, "made")
    assert not into.failure


def test_slices_follow_each_other_and_what_comes_meanwhile() -> None:
    into = delivered()
    put(into, 1, 2, 3)
    assert [entry.sequence for entry in into.take(2)] == [101, 102]
    put(into, 4)
    assert [entry.sequence for entry in into.take(2)] == [103, 104]
    assert into.take(2) == []
    put(into, 5)
    assert [entry.sequence for entry in into.take(2)] == [105]
    assert into.take(2) == []


def test_a_missed_delivery_ends_it() -> None:
    into = delivered()
    put(into, 1, 3, 4)
    assert [entry.sequence for entry in into.take(9)] == [101]
    assert into.failure == "a delivery was missed"
    assert into.take(9) == []


@pytest.mark.parametrize("reply", [b"$JS.ACK.s", b"$JS.ACK.s.c.1.x.1.1.1"])
def test_a_reply_subject_of_another_kind_ends_it(reply: bytes) -> None:
    into = delivered()
    into.sink.messages.append((SUBJECT, reply, HEADERS, PAYLOAD))
    assert into.take(9) == []
    assert "not understood" in into.failure


def test_a_heartbeat_says_that_it_is_idle_or_that_something_was_missed() -> None:
    into = delivered()
    put(into, 1)
    control(into, IDLE % 1)
    assert len(into.take(9)) == 1
    assert (into.is_idle, into.failure) == (True, "")
    control(into, IDLE % 2)
    assert into.take(9) == []
    assert "missed" in into.failure


def test_a_mark_is_due_when_what_came_before_it_was_taken_and_once() -> None:
    into = delivered()
    put(into, 1, 2)
    control(into, MARK, b"$JS.FC.x")
    assert len(into.take(1)) == 1
    assert not into.has_marks
    assert len(into.take(9)) == 1
    assert into.has_marks
    control(into, STALLED % 2)
    assert into.take(9) == []
    assert not into.is_idle, "a consumer that waits for an answer has more"
    assert into.marks() == ["$JS.FC.x"]
    assert into.marks() == []


def test_large_numbers_are_read_to_the_last_digit() -> None:
    into = delivered()
    reply = b"$JS.ACK.s.c.1.%d.1.%d.5" % (12_345_678_901, 1_795_628_400_123_456_789)
    into.sink.messages.append((SUBJECT, reply, HEADERS, PAYLOAD))
    (entry,) = into.take(10)
    assert (entry.sequence, entry.timestamp_ns) == (12_345_678_901, 1_795_628_400_123_456_789)


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.s",
        b"$JS.ACK.s.c.1",
        b"$JS.ACK.s.c.1.7.1.70",
        b"$JS.ACK.s.c.1.7..70.5",
        b"$JS.ACK.s.c.1.7.x.70.5",
        b"$JS.ACK.s.c.1.7.1.%s.5" % (b"9" * 40),
    ],
)
def test_a_reply_subject_that_is_not_understood_is_named(reply: bytes) -> None:
    into = delivered()
    into.sink.messages.append((SUBJECT, reply, HEADERS, PAYLOAD))
    assert into.take(10) == []
    assert "not understood" in into.failure


def test_an_unreadable_payload_among_others_leaves_its_place_alone() -> None:
    into = delivered()
    put(into, 1, 2, 3)
    subject, reply, headers, _ = into.sink.messages[1]
    into.sink.messages[1] = (subject, reply, headers, b"\xff")
    joined = b"".join(entry.frame for entry in into.take(10))
    streamed = Events.FromString(joined).events
    assert [each.sequence for each in streamed] == [101, 102, 103]
    assert [each.HasField("event") for each in streamed] == [True, False, True]
