"""What every cache promises, held against each of them: one suite, memory and a real server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from realtime.cache import Cache, Cached, Clear, Forget, MemoryCache, Put, RedisCache, Write
from realtime.cursor import Cursor
from tests.fixtures.eventually import eventually

EPOCH = "0190a0000000000000aa"
LATER_EPOCH = "0190b0000000000000aa"


@dataclass
class Kit:
    """A cache, and what only its store can do to it. ``lose`` is the store's FLUSHALL."""

    cache: Cache
    lose: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[Kit]:
    if request.param == "memory":
        memory = MemoryCache()

        async def lose_memory() -> None:
            memory.lose()

        yield Kit(memory, lose_memory)
        return
    url: str = request.getfixturevalue("redis_url")
    prefix = f"test-{secrets.token_hex(4)}:"
    async with Redis.from_url(url) as redis:

        async def lose_redis() -> None:
            keys = [key async for key in redis.scan_iter(f"{prefix}*")]
            if keys:
                await redis.delete(*keys)

        cache = RedisCache(url, prefix, read_timeout_s=5)
        yield Kit(cache, lose_redis)
        await cache.close()
        await lose_redis()


def at(sequence: int, epoch: str = EPOCH) -> Cursor:
    return Cursor(epoch, sequence, sequence * 1000)


def put(entity_id: str, sequence: int, model: bytes | None = b"", epoch: str = EPOCH) -> Put:
    return Put("note", entity_id, at(sequence, epoch), f"{sequence}".encode() if model == b"" else model)


def state(sequence: int) -> Cached:
    return Cached(f"{sequence}".encode(), at(sequence))


async def test_an_empty_cache_knows_nothing(kit: Kit) -> None:
    assert await kit.cache.get("note", "a") is None
    assert await kit.cache.watermark() is None


async def test_a_state_comes_back_with_its_place(kit: Kit) -> None:
    model = bytes(range(256)) * 3
    assert await kit.cache.apply([put("a", 5, model)], None, at(7))
    assert await kit.cache.get("note", "a") == Cached(model, at(5))
    assert await kit.cache.get("user", "a") is None
    assert await kit.cache.watermark() == at(7)


async def test_an_older_state_never_replaces_a_newer_one(kit: Kit) -> None:
    await kit.cache.apply([put("a", 5)])
    await kit.cache.apply([put("a", 4)])
    assert await kit.cache.get("note", "a") == state(5)
    await kit.cache.apply([put("a", 16)])
    assert await kit.cache.get("note", "a") == state(16)


async def test_an_epoch_beats_every_sequence_of_an_older_one(kit: Kit) -> None:
    await kit.cache.apply([put("a", 1, epoch=LATER_EPOCH)])
    await kit.cache.apply([put("a", 2**63)])
    assert await kit.cache.get("note", "a") == Cached(b"1", at(1, LATER_EPOCH))


async def test_a_deleted_entity_is_gone_and_not_unknown(kit: Kit) -> None:
    await kit.cache.apply([put("a", 5, None)])
    await kit.cache.apply([put("a", 4)])
    assert await kit.cache.get("note", "a") == Cached(None, at(5))
    await kit.cache.apply([put("a", 6)])
    assert await kit.cache.get("note", "a") == state(6)


async def test_a_truncated_kind_is_gone_and_the_never_cached_stays_unknown(kit: Kit) -> None:
    user = Put("user", "u", at(2), b"user")
    await kit.cache.apply([put("a", 1), user], None, at(2))
    await kit.cache.apply([Clear("note", at(5)), put("b", 6)], at(2), at(6))
    assert await kit.cache.get("note", "a") == Cached(None, at(5))
    assert await kit.cache.get("note", "b") == state(6)
    assert await kit.cache.get("note", "never-cached") is None
    assert await kit.cache.get("user", "u") == Cached(b"user", at(2))


async def test_an_older_truncation_does_not_replace_a_newer_one(kit: Kit) -> None:
    await kit.cache.apply([put("a", 4), Clear("note", at(5))])
    await kit.cache.apply([Clear("note", at(3)), put("a", 2)])
    assert await kit.cache.get("note", "a") == Cached(None, at(5))


async def test_a_forgotten_state_is_unknown(kit: Kit) -> None:
    await kit.cache.apply([put("a", 5), put("b", 7)])
    await kit.cache.apply([Forget("note", "a", at(6)), Forget("note", "b", at(6))])
    assert await kit.cache.get("note", "a") is None
    assert await kit.cache.get("note", "b") == state(7)


async def test_a_fill_is_kept_only_where_nothing_is_known(kit: Kit) -> None:
    assert await kit.cache.fill("note", "a", b"filled", 60)
    assert not await kit.cache.fill("note", "a", b"again", 60)
    assert await kit.cache.get("note", "a") == Cached(b"filled", None)
    await kit.cache.apply([put("b", 5), put("c", 5, None)])
    assert not await kit.cache.fill("note", "b", b"filled", 60)
    assert not await kit.cache.fill("note", "c", b"filled", 60)
    assert await kit.cache.get("note", "b") == state(5)
    assert await kit.cache.get("note", "c") == Cached(None, at(5))


async def test_a_fill_is_always_overwritten(kit: Kit) -> None:
    await kit.cache.apply([put("x", 8)], None, at(9))
    assert await kit.cache.fill("note", "a", b"filled", 60)
    assert await kit.cache.apply([put("a", 10)], at(9), at(10))
    assert await kit.cache.get("note", "a") == state(10)


async def test_a_fill_lasts_for_its_time(kit: Kit) -> None:
    await kit.cache.fill("note", "a", b"filled", 0.05)

    async def is_unknown() -> bool:
        return await kit.cache.get("note", "a") is None

    expired: bool = await eventually(is_unknown)
    assert expired
    assert await kit.cache.fill("note", "a", b"filled", 60)


async def test_a_truncation_makes_a_fill_unknown_and_not_gone(kit: Kit) -> None:
    await kit.cache.apply([put("x", 1)], None, at(1))
    await kit.cache.fill("note", "a", b"before", 60)
    await kit.cache.apply([Clear("note", at(2))], at(1), at(2))
    assert await kit.cache.get("note", "a") is None
    assert await kit.cache.fill("note", "a", b"after", 60)
    assert await kit.cache.get("note", "a") == Cached(b"after", None)
    assert await kit.cache.get("note", "x") == Cached(None, at(2))


async def test_the_watermark_never_goes_back(kit: Kit) -> None:
    assert await kit.cache.apply([], None, at(9))
    assert await kit.cache.apply([put("a", 3)], None, at(5))
    assert await kit.cache.watermark() == at(9)
    assert await kit.cache.apply([put("a", 12)], at(9), None)
    assert await kit.cache.watermark() == at(9)


async def test_what_the_watermark_covers_is_not_written_again(kit: Kit) -> None:
    """A slow second writer must not bring back a state whose successor was evicted."""
    await kit.cache.apply([], None, at(9))
    await kit.cache.apply([put("a", 3)], at(2), at(3))
    assert await kit.cache.get("note", "a") is None


async def test_a_lost_cache_is_empty_and_says_so(kit: Kit) -> None:
    await kit.cache.apply([put("a", 5), Clear("user", at(6))], None, at(7))
    await kit.lose()
    assert await kit.cache.watermark() is None
    assert await kit.cache.get("note", "a") is None
    assert not await kit.cache.apply([put("a", 8)], at(7), at(8))
    assert await kit.cache.watermark() is None
    assert await kit.cache.apply([put("a", 8)], None, at(8))
    assert await kit.cache.get("note", "a") == state(8)


async def test_the_watermark_does_not_jump_over_what_was_not_written(kit: Kit) -> None:
    """Another writer is building the lost cache anew: this one may not go on from the middle."""
    await kit.cache.apply([put("a", 1)], None, at(2))
    assert not await kit.cache.apply([put("a", 9)], at(8), at(9))
    assert await kit.cache.watermark() == at(2)
    assert await kit.cache.get("note", "a") == state(1)


async def test_a_reset_forgets_everything_once(kit: Kit) -> None:
    await kit.cache.apply([put("a", 50), Clear("note", at(60)), Clear("user", at(61))], None, at(70))
    await kit.cache.reset(at(70))
    assert await kit.cache.watermark() is None
    assert await kit.cache.get("note", "a") is None
    # A history that was rewritten has lower positions, and they count.
    await kit.cache.apply([put("a", 40), Put("user", "u", at(41), b"u")], None, at(45))
    await kit.cache.reset(at(70))
    assert await kit.cache.get("note", "a") == state(40)
    assert await kit.cache.get("user", "u") == Cached(b"u", at(41))
    assert await kit.cache.watermark() == at(45)


async def test_a_large_batch_is_written_whole(kit: Kit) -> None:
    many: list[Write] = [put(f"n{number}", number) for number in range(1, 701)]
    many += [put(f"big{number}", 1000 + number, bytes(300_000)) for number in range(4)]
    assert await kit.cache.apply(many, None, at(2000))
    assert await kit.cache.watermark() == at(2000)
    for number in (1, 256, 257, 700):
        assert await kit.cache.get("note", f"n{number}") == state(number)
    assert await kit.cache.get("note", "big3") == Cached(bytes(300_000), at(1003))


IDS = ("a", "b", "c")
_event = st.tuples(st.sampled_from(["put", "put", "delete", "forget", "clear", "none"]), st.sampled_from(IDS))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(_event, min_size=1, max_size=24),
    cuts=st.tuples(st.sets(st.integers(1, 23)), st.sets(st.integers(1, 23))),
    turns=st.lists(st.sampled_from(["first", "second", "fill", "lose"]), max_size=40),
)
async def test_interleaved_writers_end_in_the_newest_state(
    kit: Kit,
    history: Sequence[tuple[str, str]],
    cuts: tuple[set[int], set[int]],
    turns: Sequence[str],
) -> None:
    """Two projectors cut one history differently and take turns at random, while fills come
    in between and the store is lost: in the end the cache holds what the history ends in."""
    await kit.lose()
    writers = [_Writer(kit.cache, history, cut) for cut in cuts]
    highest: Cursor | None = None
    for turn in turns:
        if turn == "lose":
            await kit.lose()
            highest = None
        elif turn == "fill":
            for entity_id in IDS:
                await kit.cache.fill("note", entity_id, b"filled", 60)
        else:
            await writers[turn == "second"].step()
        watermark = await kit.cache.watermark()
        assert highest is None or (watermark is not None and watermark.sequence >= highest.sequence)
        highest = watermark
    for writer in writers:
        await writer.finish()

    assert await kit.cache.watermark() == at(len(history))
    for entity_id in IDS:
        known = await kit.cache.get("note", entity_id)
        expected = _expected(history, entity_id)
        if expected is None:
            assert known is None or known.cursor is None
        elif known is not None and known.cursor is None:
            # A fill may stand where nothing is known: never before a state that stands.
            assert expected == Cached(None, None)
        elif expected == Cached(None, None):
            assert known is None or known.model is None
        else:
            assert known == expected


class _Writer:
    """A projector without its stream: one history in batches that end at ``cuts``."""

    def __init__(self, cache: Cache, history: Sequence[tuple[str, str]], cuts: set[int]) -> None:
        self._cache = cache
        self._history = history
        self._ends = sorted({cut for cut in cuts if cut < len(history)} | {len(history)})
        self._position: Cursor | None = None

    async def step(self) -> bool:
        """One batch; False when none was left."""
        begin = self._position.sequence if self._position else 0
        end = next((end for end in self._ends if end > begin), None)
        if end is None:
            # As on an idle stream: the watermark is written again.
            end = len(self._history)
        writes = [write for number in range(begin + 1, end + 1) if (write := self._write(number))]
        if await self._cache.apply(writes, self._position, at(end)):
            self._position = at(end)
            return end > begin
        self._position = await self._cache.watermark()
        return True

    async def finish(self) -> None:
        while await self.step():
            pass

    def _write(self, number: int) -> Write | None:
        action, entity_id = self._history[number - 1]
        if action == "clear":
            return Clear("note", at(number))
        if action == "forget":
            return Forget("note", entity_id, at(number))
        if action == "none":
            return None
        return put(entity_id, number, None if action == "delete" else b"")


def _expected(history: Sequence[tuple[str, str]], entity_id: str) -> Cached | None:
    """The state that the history ends in; Cached(None, None) when it may be gone or unknown, None when forgotten."""
    known: Cached | None = Cached(None, None)
    for number, (action, target) in enumerate(history, start=1):
        if action == "clear":
            known = Cached(None, None)
        elif target == entity_id and action == "put":
            known = state(number)
        elif target == entity_id and action == "delete":
            known = Cached(None, at(number))
        elif target == entity_id and action == "forget":
            known = None
    return known
