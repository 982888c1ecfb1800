"""How much of the loop the pasts may have: counted in rests of a clock that only resting moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from realtime.hub import Hub
from realtime.pace import (
    ALLOWANCE,
    FACTORS,
    LATE_S,
    LIVE_S,
    LIVE_SLICE,
    MOST_REST_S,
    PATIENCE_S,
    READ_BYTES,
    REST_S,
    SLICE,
    Pace,
    Past,
)
from realtime.point import Point


@dataclass
class Clock:
    """Stands still but for rests, which take ``late_s`` longer than they should."""

    now: float = 100.0
    late_s: float = 0.0
    rests: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds + self.late_s

    def taken(self) -> list[float]:
        rests, self.rests = self.rests, []
        return rests


def make() -> tuple[Clock, Pace, Hub]:
    clock, hub = Clock(), Hub()
    hub.begin("00" * 10, Point(0, 0, 0, 0, 0))
    return clock, Pace(clock, clock.sleep), hub


async def work(past: Past, clock: Clock, seconds: float, entries: int = LIVE_SLICE) -> None:
    async with past:
        clock.now += seconds
    past.handed(entries)


async def test_without_live_frames_a_past_never_rests() -> None:
    clock, pace, hub = make()
    past = Past(pace, hub)
    for _ in range(100):
        await work(past, clock, 0.001)
        await pace.read(READ_BYTES)
    assert clock.taken() == [0] * 100, "no more than a turn of the loop, for each piece that is read"
    assert pace.slice == SLICE


async def test_while_something_is_live_it_rests_for_a_multiple_of_its_work_in_smaller_slices() -> None:
    clock, pace, hub = make()
    past = Past(pace, hub)
    worked = rested = 0.0
    for _ in range(50):
        pace.begin_live()
        pace.end_live()
        assert pace.slice == LIVE_SLICE < SLICE
        await work(past, clock, 0.0004)
        worked += 0.0004
        rested += sum(clock.taken())
    assert rested >= FACTORS[0] * (worked - REST_S)
    clock.now += LIVE_S
    assert pace.slice == SLICE
    await work(past, clock, 1)
    assert not clock.rests, "what was owed to live frames is owed no more when none are sent"


async def test_no_slice_begins_while_a_live_frame_is_under_way_but_a_slow_client_does_not_hold_it_for_ever() -> (
    None
):
    clock, pace, hub = make()
    past = Past(pace, hub)
    pace.begin_live()
    waiting = asyncio.ensure_future(work(past, clock, 0))
    await waiting
    assert sum(clock.taken()) == pytest.approx(PATIENCE_S)
    pace.end_live()
    await work(past, clock, 0)
    assert not clock.rests


async def test_a_loop_that_is_late_gives_the_pasts_less_and_never_nothing() -> None:
    clock, pace, hub = make()
    past = Past(pace, hub)
    clock.late_s = 2 * LATE_S
    for _ in range(20):
        pace.begin_live()
        pace.end_live()
        await work(past, clock, 0.001)
    assert pace.factor == FACTORS[1]
    assert max(clock.taken()) <= MOST_REST_S
    clock.late_s = 0.0
    for _ in range(50):
        pace.begin_live()
        pace.end_live()
        await work(past, clock, 0.001)
    assert pace.factor == FACTORS[0]


async def test_what_all_pasts_did_is_paid_by_whoever_is_next() -> None:
    clock, pace, hub = make()
    pasts = [Past(pace, hub) for _ in range(4)]
    pace.begin_live()
    pace.end_live()
    for past in pasts:
        await work(past, clock, 0.0004)
    assert sum(clock.taken()) == pytest.approx(FACTORS[0] * 2 * 0.0004)


async def test_a_past_that_does_not_gain_on_the_live_edge_does_not_rest() -> None:
    clock, pace, hub = make()
    past = Past(pace, hub)
    pace.begin_live()
    came = ALLOWANCE
    hub.position = Point(came, 0, came, 0, 0)
    handed = 0
    while handed + ALLOWANCE < 2 * came:
        await work(past, clock, 0.001)
        handed += LIVE_SLICE
        assert not clock.rests
    await work(past, clock, 0.001)
    assert clock.rests, "twice of what came: it may rest"


async def test_what_the_broker_sends_at_once_is_read_piece_by_piece_while_something_is_live() -> None:
    clock, pace, _ = make()
    pace.begin_live()
    pace.end_live()
    for _ in range(8):
        await pace.read(READ_BYTES // 2)
    assert clock.rests == [REST_S] * 4


async def test_a_live_frame_whose_client_does_not_read_is_waited_for_once() -> None:
    clock, pace, _ = make()
    pace.begin_live()
    await pace.rest()
    assert sum(clock.taken()) == pytest.approx(PATIENCE_S)
    for _ in range(20):
        pace.begin_live()
        pace.end_live()
        await pace.rest()
    assert clock.taken() == []
    pace.end_live()
    pace.begin_live()
    await pace.rest()
    assert sum(clock.taken()) == pytest.approx(PATIENCE_S), "a new one is waited for"
