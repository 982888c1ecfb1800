"""Broadcasts that wait in the client: bounded, counted, and never for ever behind the stream."""

from __future__ import annotations

from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.client import aside
from realtime.client.aside import Aside


def frame(*numbers: int, dropped: int = 0) -> pb.SubscribeResponse:
    events = [Event(id=str(number)) for number in numbers]
    return pb.SubscribeResponse(broadcasts=pb.Broadcasts(events=events, dropped=dropped))


def test_the_oldest_go_and_are_counted_with_what_the_server_dropped() -> None:
    box = Aside()
    given = aside._MAX_EVENTS + 50
    for number in range(given):
        box.put(frame(number, dropped=1), 10)
    first = box.take().broadcasts
    assert [event.id for event in first.events] == ["50"]
    assert first.dropped == 50 + 51
    taken = [first]
    while box:
        taken.append(box.take().broadcasts)
    assert sum(len(each.events) + each.dropped for each in taken) == given * 2
    assert taken[1].dropped == 1


def test_it_is_bounded_by_bytes_and_takes_one_of_any_size() -> None:
    box = Aside()
    box.put(frame(1), 100 * aside._MAX_BYTES)
    box.put(frame(2), aside._MAX_BYTES - 1)
    box.put(frame(3), 1)
    box.put(frame(4), 2)
    assert box.take().broadcasts == pb.Broadcasts(events=[Event(id="3")], dropped=2)
    assert box.take().broadcasts == pb.Broadcasts(events=[Event(id="4")])
    assert not box


def test_a_turn_comes_behind_some_frames_of_the_stream() -> None:
    box = Aside()
    assert not any(box.has_turn() for _ in range(20))
    box.put(frame(1), 1)
    box.put(frame(2), 1)
    turns = []
    for _ in range(10):
        turns.append(box.has_turn())
        if turns[-1]:
            box.take()
    assert turns == [False] * 4 + [True] + [False] * 4 + [True]
