"""Silence that is too long, and silence that is not."""

from __future__ import annotations

import asyncio
import time

from realtime.client.watchdog import Watchdog
from tests.fixtures.eventually import eventually


async def test_it_barks_once_after_the_silence() -> None:
    barks: list[float] = []
    loop = asyncio.get_running_loop()
    heard_at = [loop.time()]
    watchdog = Watchdog(0.2, lambda: barks.append(loop.time()))
    for _ in range(5):
        until = loop.time() + 0.1
        await eventually(lambda until=until: loop.time() > until)  # type: ignore[misc]
        if barks:
            break  # the machine is busy, and this took as long as the silence
        heard_at.append(loop.time())
        watchdog.heard()
    await eventually(lambda: barks)
    assert barks[0] - heard_at[-1] >= 0.2
    watchdog.stop()
    assert len(barks) == 1


async def test_it_sleeps_while_nobody_listens() -> None:
    barks: list[int] = []
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(0.05, lambda: barks.append(1))
    watchdog.pause()
    until = loop.time() + 0.2
    await eventually(lambda: loop.time() > until)
    assert barks == []
    watchdog.resume()
    await eventually(lambda: barks)


async def test_a_loop_that_stood_still_is_no_silence() -> None:
    barks: list[int] = []
    watchdog = Watchdog(0.1, lambda: barks.append(1))
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        pass  # a handler that does not yield
    # The timer is over due, and rings in the loop's next turn.
    for _ in range(3):
        await asyncio.sleep(0)
    assert barks == []
    watchdog.heard()
    watchdog.stop()
