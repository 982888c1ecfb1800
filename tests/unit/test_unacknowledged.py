"""What a publisher keeps until its result came: order, bounds, and the bytes that are sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from realtime.client.draft import draft
from realtime.client.published import Publication
from realtime.client.unacknowledged import MAX_BYTES, MAX_EVENTS, Unacknowledged, produced
from realtime.errors import NotPublished, OutcomeUnknown, RealtimeError, Unavailable


def publication(sequence: int, body: str = "") -> Publication:
    event = draft(kind="note", entity=str(sequence), verb="shared", actor=body)
    return Publication(sequence, produced(sequence, event.event.SerializeToString(), None))


def sent(unacknowledged: Unacknowledged) -> list[int]:
    request = pb.PublishStreamRequest.FromString(unacknowledged.request())
    return [event.sequence for event in request.events.events]


def stored(sequence: int) -> pb.PublishResult:
    return pb.PublishResult(sequence=sequence, stored=pb.Stored(cursor=b"c", sequence=sequence, version=1))


def filled(count: int) -> tuple[Unacknowledged, list[Publication]]:
    result, publications = Unacknowledged(), [publication(number) for number in range(1, count + 1)]
    for each in publications:
        result.add(each)
    return result, publications


def test_many_that_wait_share_a_request_up_to_its_bounds() -> None:
    unacknowledged, _ = filled(MAX_EVENTS + 2)
    assert sent(unacknowledged) == list(range(1, MAX_EVENTS + 1))
    assert sent(unacknowledged) == [MAX_EVENTS + 1, MAX_EVENTS + 2]
    assert unacknowledged.request() == b""
    large = Unacknowledged()
    for number in range(1, 4):
        large.add(publication(number, "x" * (MAX_BYTES // 2)))
    large.add(publication(4, "x" * MAX_BYTES))
    assert [sent(large), sent(large), sent(large), sent(large)] == [[1], [2], [3], [4]]


def test_what_has_no_result_is_sent_again_in_its_order() -> None:
    unacknowledged, publications = filled(5)
    assert sent(unacknowledged) == [1, 2, 3, 4, 5]
    unacknowledged.settle(stored(1))
    unacknowledged.add(publication(6))
    unacknowledged.rewind()
    assert len(unacknowledged) == 5
    assert sent(unacknowledged) == [2, 3, 4, 5, 6]
    assert publications[0].result().sequence == 1


def test_the_window_bounds_events_and_bytes_but_always_admits_one() -> None:
    unacknowledged = Unacknowledged()
    assert unacknowledged.has_room(1 << 30)
    unacknowledged.grant(pb.PublishWindow(events=2, bytes=300))
    unacknowledged.add(publication(1))
    assert unacknowledged.has_room(100)
    assert not unacknowledged.has_room(300)
    unacknowledged.add(publication(2))
    assert not unacknowledged.has_room(1)
    unacknowledged.request()
    unacknowledged.settle(stored(1))
    unacknowledged.settle(stored(2))
    assert unacknowledged.size == 0
    assert unacknowledged.has_room(1 << 30)


def test_a_result_that_is_not_due_is_a_fault_of_the_server() -> None:
    unacknowledged, _ = filled(2)
    unacknowledged.request()
    with pytest.raises(RealtimeError, match="gave the result of event 2, and 1 was due"):
        unacknowledged.settle(stored(2))


def test_a_result_that_may_come_again_settles_nothing() -> None:
    unacknowledged, (first,) = filled(1)
    unacknowledged.request()
    error = codes.Error(code=codes.ERROR_CODE_UNAVAILABLE, message="the broker is away")
    with pytest.raises(Unavailable):
        unacknowledged.settle(pb.PublishResult(sequence=1, error=error))
    assert not first.done
    unacknowledged.rewind()
    assert sent(unacknowledged) == [1]


def test_what_is_abandoned_says_whether_it_may_be_stored() -> None:
    unacknowledged, publications = filled(2)
    unacknowledged.request()
    unacknowledged.add(late := publication(3))
    unacknowledged.abandon(RealtimeError("over"))
    assert [type(each.error) for each in (*publications, late)] == [
        OutcomeUnknown,
        OutcomeUnknown,
        NotPublished,
    ]


@given(st.integers(1, 2**64 - 1), st.text(max_size=300), st.none() | st.integers(0, 2**64 - 1))
def test_an_event_is_written_as_protobuf_writes_it(sequence: int, actor: str, version: int | None) -> None:
    event = pb.NewEvent(kind="note", actor=actor)
    expectation = None if version is None else pb.Expectation(version=version)
    expected = pb.ProducedEvents(
        events=[pb.ProducedEvent(sequence=sequence, event=event, expectation=expectation)]
    )
    data = produced(
        sequence,
        event.SerializeToString(),
        None if expectation is None else expectation.SerializeToString(),
    )
    assert data == expected.SerializeToString()
