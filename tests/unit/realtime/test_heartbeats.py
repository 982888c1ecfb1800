"""The wheel of heartbeats: all are asked in time, never all at once, and nothing ticks without them."""

from __future__ import annotations

import asyncio
from collections import Counter

from realtime.services.heartbeats import SLOTS, Heartbeats
from tests.fixtures.eventually import eventually


class Stream:
    """Asked again after so many slots."""

    def __init__(self, after: int = SLOTS) -> None:
        self.slot = 0
        self.beats = 0
        self._after = after

    def beat(self) -> int:
        self.beats += 1
        return self._after


async def test_streams_that_come_together_are_dealt_out() -> None:
    wheel = Heartbeats(60)
    streams = [Stream() for _ in range(10 * SLOTS)]
    for stream in streams:
        wheel.add(stream)
    assert set(Counter(stream.slot for stream in streams).values()) == {10}
    for stream in streams:
        wheel.remove(stream)
    assert not any(wheel._slots)


async def test_each_is_asked_as_often_as_it_wants() -> None:
    wheel = Heartbeats(0.2)
    seldom, often = Stream(), Stream(after=SLOTS // 10)
    began = asyncio.get_running_loop().time()
    wheel.add(seldom)
    wheel.add(often)
    await eventually(lambda: seldom.beats >= 3)
    rounds = (asyncio.get_running_loop().time() - began) / 0.2
    assert seldom.beats <= rounds + 1
    assert 20 <= often.beats <= 10 * (rounds + 1)
    wheel.remove(seldom)
    wheel.remove(often)


async def test_no_timer_runs_without_a_stream_and_one_again_with_the_next() -> None:
    wheel = Heartbeats(0.1)
    first = Stream()
    wheel.add(first)
    wheel.remove(first)
    assert wheel._timer is None
    second = Stream()
    wheel.add(second)
    await eventually(lambda: second.beats)
    wheel.remove(second)
    assert not first.beats
