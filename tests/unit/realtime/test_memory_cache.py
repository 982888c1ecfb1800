"""The bounds of the memory cache, and its clock. What it shares with Redis is in the contract suite."""

from __future__ import annotations

from realtime.cache import Cached, MemoryCache, Put
from realtime.cache.protocol import TOMBSTONE_TTL_S
from realtime.cursor import Cursor

EPOCH = "0190a0000000000000aa"


def put(entity_id: str, sequence: int, model: bytes | None = b"m") -> Put:
    return Put("note", entity_id, Cursor(EPOCH, sequence, sequence), model)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_least_recently_read_goes_first() -> None:
    cache = MemoryCache(max_entries=2)
    await cache.apply([put("a", 1), put("b", 2)])
    assert await cache.get("note", "a") is not None
    await cache.apply([put("c", 3)])
    assert await cache.get("note", "b") is None
    assert await cache.get("note", "a") is not None
    assert len(cache) == 2


async def test_the_bytes_are_bounded() -> None:
    cache = MemoryCache(max_bytes=100)
    await cache.apply([put("a", 1, bytes(60)), put("b", 2, bytes(60))])
    assert await cache.get("note", "a") is None
    assert await cache.get("note", "b") is not None
    await cache.apply([put("c", 3, bytes(101))])
    assert len(cache) == 0
    await cache.apply([put("d", 4, bytes(100))])
    assert len(cache) == 1


async def test_eviction_leaves_the_watermark() -> None:
    cache = MemoryCache(max_entries=1)
    through = Cursor(EPOCH, 2, 2)
    await cache.apply([put("a", 1), put("b", 2)], None, through)
    assert await cache.watermark() == through


async def test_a_tombstone_lasts_a_day() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    await cache.apply([put("a", 1, None)])
    clock.now = TOMBSTONE_TTL_S - 1
    assert await cache.get("note", "a") == Cached(None, Cursor(EPOCH, 1, 1))
    clock.now = TOMBSTONE_TTL_S
    assert await cache.get("note", "a") is None
    assert len(cache) == 0


async def test_a_fill_lasts_its_seconds() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    await cache.fill("note", "a", b"m", 10)
    clock.now = 9.9
    assert await cache.get("note", "a") == Cached(b"m", None)
    clock.now = 10
    assert await cache.get("note", "a") is None
