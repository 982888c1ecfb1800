"""When an alarm speaks, on a clock of the test's own."""

from __future__ import annotations

import pytest

from bridge.alarm import Alarm, Word
from bridge.heartbeat import held_wal_limit


def test_at_once_then_more_seldom_and_when_it_is_over() -> None:
    alarm = Alarm(first_pause_s=10, longest_pause_s=25)
    said = [now for now in range(100) if alarm.check(True, now) is Word.RAISED]
    assert said == [0, 10, 30, 55, 80]
    assert alarm.raised
    assert alarm.check(False, 100) is Word.CLEARED
    assert alarm.check(False, 101) is None
    assert not alarm.raised
    # The next time it begins anew.
    assert [now for now in range(102, 130) if alarm.check(True, now)] == [102, 112]


def test_nothing_is_said_of_what_never_was() -> None:
    assert Alarm().check(False, 0) is None


@pytest.mark.parametrize(
    ("warn", "keep", "limit"),
    [
        (None, None, 1 << 30),
        (None, 1 << 40, 1 << 30),
        (None, 1 << 20, 1 << 19),
        (5, 1 << 20, 5),
        (0, 1 << 20, 0),
        (1 << 40, None, 1 << 40),
    ],
)
def test_from_where_on_held_wal_is_an_alarm(warn: int | None, keep: int | None, limit: int) -> None:
    assert held_wal_limit(warn, keep) == limit
