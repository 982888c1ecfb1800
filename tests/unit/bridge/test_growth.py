"""How much others stored, and when the broker is asked again."""

from __future__ import annotations

import math

from bridge.growth import Counts, Growth
from bridge.stream import StreamState


def growth(max_bytes: int = 0, max_msgs: int = 0) -> Growth:
    return Growth(StreamState("0190a0000000000000aa", 0, 0, 0, max_bytes, max_msgs))


def test_without_limits_nobody_asks() -> None:
    assert growth().pause_s == math.inf


def test_own_messages_are_nobody_elses() -> None:
    seen = growth(max_bytes=1 << 30)
    assert seen.pause_s == 0
    assert seen.looked(Counts(1, 10, 10, 1000)) == 0
    seen.stored(5, 700)
    assert seen.looked(Counts(1, 15, 15, 1600)) == 0
    seen.stored(5, 500)
    assert seen.looked(Counts(1, 25, 25, 4600)) == 2500


def test_bytes_of_others_once_old_messages_are_evicted() -> None:
    seen = growth(max_bytes=10_000)
    seen.looked(Counts(1, 100, 100, 10_000))
    # As much came as went.
    assert seen.looked(Counts(51, 150, 100, 10_000)) == 5000
    # Small ones went, large ones came: the mean of what is there is more.
    assert seen.looked(Counts(151, 160, 10, 10_000)) == 10_000


def test_it_asks_the_sooner_the_faster_a_limit_comes_near() -> None:
    seen = growth(max_msgs=1_000_000)
    seen.looked(Counts(1, 100, 100, 100))
    seen.looked(Counts(1, 100, 100, 100))
    idle_s = seen.pause_s
    seen.looked(Counts(1, 900_000, 900_000, 900_000))
    assert seen.pause_s < idle_s <= 0.25


def test_a_small_stream_is_looked_at_often() -> None:
    small, large = growth(max_msgs=1000), growth(max_msgs=10_000_000)
    for each in (small, large):
        each.looked(Counts(1, 1, 1, 1))
        each.looked(Counts(1, 1, 1, 1))
    assert small.pause_s < 0.02
    assert large.pause_s > 0.1
