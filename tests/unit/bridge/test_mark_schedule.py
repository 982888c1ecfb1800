"""When a mark is due: a quarter of each limit from the stream's end, with what comes next."""

from __future__ import annotations

import pytest

from bridge.mark_schedule import MarkSchedule
from bridge.stream import StreamState


def schedule(max_age_s: float = 0, max_bytes: int = 0, max_msgs: int = 0) -> MarkSchedule:
    return MarkSchedule(StreamState("0190a0000000000000aa", 0, 0, max_age_s, max_bytes, max_msgs))


def test_without_limits_it_is_never_due() -> None:
    mark = schedule()
    mark.stored(1 << 40, 1)
    assert not mark.is_due(1 << 40, 1 << 20, 1 << 30)


def test_messages_that_come_next_count() -> None:
    mark = schedule(max_msgs=40)
    mark.written(100)
    assert not mark.is_due(105, 4, 0)
    assert mark.is_due(105, 5, 0)
    mark.written(106)
    assert not mark.is_due(106, 9, 0)


@pytest.mark.parametrize("max_msgs", [4, 8, 12])
def test_two_marks_of_an_idle_source_do_not_make_each_other_due(max_msgs: int) -> None:
    owner, position = schedule(max_msgs=max_msgs), schedule(max_msgs=max_msgs)
    owner.written(1)
    position.written(2)
    assert not owner.is_due(2, 1, 0)
    assert not position.is_due(2, 1, 0)


def test_bytes_count_from_the_mark_on() -> None:
    mark = schedule(max_bytes=4000)
    mark.stored(999, 1)
    assert not mark.is_due(1, 1, 0)
    assert mark.is_due(1, 1, 1)
    # What an earlier term wrote has bytes behind it that nobody counted: they are not forgotten here.
    mark.found(1)
    assert mark.is_due(1, 1, 1)
    mark.written(2)
    assert not mark.is_due(2, 1, 1)


def test_age() -> None:
    young, old = schedule(max_age_s=1e6), schedule(max_age_s=1e-6)
    for mark in (young, old):
        mark.written(1)
    assert not young.is_due(1, 1, 0)
    assert old.is_due(1, 1, 0)
    assert 0 <= young.age_s < 1e3
