"""Reads that are shared: by those who asked before one began, in spite of who is cancelled or what fails."""

from __future__ import annotations

import asyncio

import pytest

from realtime.errors import Unavailable
from realtime.shared_reads import SharedReads


class Reads:
    """Reads that end when they are told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Event()
        self.error: Unavailable | None = None

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_waits_together_shares_and_who_comes_later_reads_anew() -> None:
    shared, reads = SharedReads(1), Reads()
    first = asyncio.ensure_future(shared.ask("a", reads.read))
    await turns()
    later = [asyncio.ensure_future(shared.ask("a", reads.read)) for _ in range(5)]
    await turns()
    assert reads.begun == 1
    reads.gate.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 5
    assert await shared.ask("a", reads.read) == 3


async def test_other_keys_have_turns_of_their_own_up_to_the_bound() -> None:
    shared, reads = SharedReads(2), Reads()
    asked = [asyncio.ensure_future(shared.ask(key, reads.read)) for key in "abc"]
    await turns()
    assert reads.begun == 2
    reads.gate.set()
    assert sorted(await asyncio.gather(*asked)) == [1, 2, 3]


async def test_reads_that_are_kept_apart_are_shared_by_those_who_came_meanwhile() -> None:
    shared, reads = SharedReads(1, apart_s=0.2), Reads()
    reads.gate.set()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await shared.ask("a", reads.read) == 1
    assert loop.time() - began < 0.2, "the first one waits for nothing"
    asked = []
    for _ in range(5):
        asked.append(asyncio.ensure_future(shared.ask("a", reads.read)))
        await turns()
    assert await asyncio.gather(*asked) == [2] * 5
    assert loop.time() - began >= 0.2


async def queued(shared: SharedReads, reads: Reads) -> tuple[Reads, list[asyncio.Task[int]]]:
    """What is read now, and three who wait for the same."""
    busy = Reads()
    reading = asyncio.create_task(shared.ask("busy", busy.read))
    await turns()
    waiting = [asyncio.create_task(shared.ask("a", reads.read)) for _ in range(3)]
    await turns()
    assert reads.begun == 0
    reading.add_done_callback(lambda done: done.result())
    return busy, waiting


@pytest.mark.parametrize("is_reading", [True, False])
async def test_another_one_reads_when_the_first_is_cancelled(is_reading: bool) -> None:
    shared, reads = SharedReads(1), Reads()
    busy, (first, second, third) = await queued(shared, reads)
    if is_reading:
        busy.gate.set()
        await turns()
        assert reads.begun == 1
    first.cancel()
    await turns()
    busy.gate.set()
    reads.gate.set()
    # Each of them asked before its read began; that they share it is no promise then.
    assert await second == (2 if is_reading else 1)
    assert await third == (3 if is_reading else 1)
    assert first.cancelled()


async def test_who_is_cancelled_takes_nobody_along() -> None:
    shared, reads = SharedReads(1), Reads()
    busy, (first, second, third) = await queued(shared, reads)
    third.cancel()
    busy.gate.set()
    reads.gate.set()
    assert (await first, await second) == (1, 1)


async def test_a_failure_is_everybodys_and_the_next_read_is_another_one() -> None:
    shared, reads = SharedReads(1), Reads()
    reads.error = Unavailable("away")
    busy, waiting = await queued(shared, reads)
    busy.gate.set()
    reads.gate.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in ended)
    reads.error = None
    assert await shared.ask("a", reads.read) == 2
