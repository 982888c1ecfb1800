"""What every cache promises, held against each of them: one suite, memory and a real server."""

from __future__ import annotations

from realtime.cache import Cached, Clear, Forget, Put, Write
from tests.contract.cache_history import at, put, state
from tests.fixtures.cache_kit import CacheKit
from tests.fixtures.eventually import eventually

LATER_EPOCH = "0190b0000000000000aa"


async def test_an_empty_cache_knows_nothing(cache_kit: CacheKit) -> None:
    assert await cache_kit.cache.get("note", "a") is None
    assert await cache_kit.cache.watermark() is None


async def test_a_state_comes_back_with_its_place(cache_kit: CacheKit) -> None:
    model = bytes(range(256)) * 3
    assert await cache_kit.cache.apply([put("a", 5, model)], None, at(7))
    assert await cache_kit.cache.get("note", "a") == Cached(model, at(5))
    assert await cache_kit.cache.get("user", "a") is None
    assert await cache_kit.cache.watermark() == at(7)


async def test_an_older_state_never_replaces_a_newer_one(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 5)])
    await cache_kit.cache.apply([put("a", 4)])
    assert await cache_kit.cache.get("note", "a") == state(5)
    await cache_kit.cache.apply([put("a", 16)])
    assert await cache_kit.cache.get("note", "a") == state(16)


async def test_an_epoch_beats_every_sequence_of_an_older_one(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 1, epoch=LATER_EPOCH)])
    await cache_kit.cache.apply([put("a", 2**63)])
    assert await cache_kit.cache.get("note", "a") == Cached(b"1", at(1, LATER_EPOCH))


async def test_a_deleted_entity_is_gone_and_not_unknown(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 5, None)])
    await cache_kit.cache.apply([put("a", 4)])
    assert await cache_kit.cache.get("note", "a") == Cached(None, at(5))
    await cache_kit.cache.apply([put("a", 6)])
    assert await cache_kit.cache.get("note", "a") == state(6)


async def test_a_truncated_kind_is_gone_and_the_never_cached_stays_unknown(cache_kit: CacheKit) -> None:
    user = Put("user", "u", at(2), b"user")
    await cache_kit.cache.apply([put("a", 1), user], None, at(2))
    await cache_kit.cache.apply([Clear("note", at(5)), put("b", 6)], at(2), at(6))
    assert await cache_kit.cache.get("note", "a") == Cached(None, at(5))
    assert await cache_kit.cache.get("note", "b") == state(6)
    assert await cache_kit.cache.get("note", "never-cached") is None
    assert await cache_kit.cache.get("user", "u") == Cached(b"user", at(2))


async def test_an_older_truncation_does_not_replace_a_newer_one(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 4), Clear("note", at(5))])
    await cache_kit.cache.apply([Clear("note", at(3)), put("a", 2)])
    assert await cache_kit.cache.get("note", "a") == Cached(None, at(5))


async def test_a_forgotten_state_is_unknown(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 5), put("b", 7)])
    await cache_kit.cache.apply([Forget("note", "a", at(6)), Forget("note", "b", at(6))])
    assert await cache_kit.cache.get("note", "a") is None
    assert await cache_kit.cache.get("note", "b") == state(7)


async def test_a_fill_is_kept_only_where_nothing_is_known(cache_kit: CacheKit) -> None:
    assert await cache_kit.cache.fill("note", "a", b"filled", 60)
    assert not await cache_kit.cache.fill("note", "a", b"again", 60)
    assert await cache_kit.cache.get("note", "a") == Cached(b"filled", None)
    await cache_kit.cache.apply([put("b", 5), put("c", 5, None)])
    assert not await cache_kit.cache.fill("note", "b", b"filled", 60)
    assert not await cache_kit.cache.fill("note", "c", b"filled", 60)
    assert await cache_kit.cache.get("note", "b") == state(5)
    assert await cache_kit.cache.get("note", "c") == Cached(None, at(5))


async def test_a_fill_is_always_overwritten(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("x", 8)], None, at(9))
    assert await cache_kit.cache.fill("note", "a", b"filled", 60)
    assert await cache_kit.cache.apply([put("a", 10)], at(9), at(10))
    assert await cache_kit.cache.get("note", "a") == state(10)


async def test_a_fill_lasts_for_its_time(cache_kit: CacheKit) -> None:
    await cache_kit.cache.fill("note", "a", b"filled", 0.05)

    async def is_unknown() -> bool:
        return await cache_kit.cache.get("note", "a") is None

    expired: bool = await eventually(is_unknown)
    assert expired
    assert await cache_kit.cache.fill("note", "a", b"filled", 60)


async def test_a_truncation_makes_a_fill_unknown_and_not_gone(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("x", 1)], None, at(1))
    await cache_kit.cache.fill("note", "a", b"before", 60)
    await cache_kit.cache.apply([Clear("note", at(2))], at(1), at(2))
    assert await cache_kit.cache.get("note", "a") is None
    assert await cache_kit.cache.fill("note", "a", b"after", 60)
    assert await cache_kit.cache.get("note", "a") == Cached(b"after", None)
    assert await cache_kit.cache.get("note", "x") == Cached(None, at(2))


async def test_the_watermark_never_goes_back(cache_kit: CacheKit) -> None:
    assert await cache_kit.cache.apply([], None, at(9))
    assert await cache_kit.cache.apply([put("a", 3)], None, at(5))
    assert await cache_kit.cache.watermark() == at(9)
    assert await cache_kit.cache.apply([put("a", 12)], at(9), None)
    assert await cache_kit.cache.watermark() == at(9)


async def test_what_the_watermark_covers_is_not_written_again(cache_kit: CacheKit) -> None:
    """A slow second writer must not bring back a state whose successor was evicted."""
    await cache_kit.cache.apply([], None, at(9))
    await cache_kit.cache.apply([put("a", 3)], at(2), at(3))
    assert await cache_kit.cache.get("note", "a") is None


async def test_a_lost_cache_is_empty_and_says_so(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 5), Clear("user", at(6))], None, at(7))
    await cache_kit.lose()
    assert await cache_kit.cache.watermark() is None
    assert await cache_kit.cache.get("note", "a") is None
    assert not await cache_kit.cache.apply([put("a", 8)], at(7), at(8))
    assert await cache_kit.cache.watermark() is None
    assert await cache_kit.cache.apply([put("a", 8)], None, at(8))
    assert await cache_kit.cache.get("note", "a") == state(8)


async def test_the_watermark_does_not_jump_over_what_was_not_written(cache_kit: CacheKit) -> None:
    """Another writer is building the lost cache anew: this one may not go on from the middle."""
    await cache_kit.cache.apply([put("a", 1)], None, at(2))
    assert not await cache_kit.cache.apply([put("a", 9)], at(8), at(9))
    assert await cache_kit.cache.watermark() == at(2)
    assert await cache_kit.cache.get("note", "a") == state(1)


async def test_a_reset_forgets_everything_once(cache_kit: CacheKit) -> None:
    await cache_kit.cache.apply([put("a", 50), Clear("note", at(60)), Clear("user", at(61))], None, at(70))
    await cache_kit.cache.reset(at(70))
    assert await cache_kit.cache.watermark() is None
    assert await cache_kit.cache.get("note", "a") is None
    # A history that was rewritten has lower positions, and they count.
    await cache_kit.cache.apply([put("a", 40), Put("user", "u", at(41), b"u")], None, at(45))
    await cache_kit.cache.reset(at(70))
    assert await cache_kit.cache.get("note", "a") == state(40)
    assert await cache_kit.cache.get("user", "u") == Cached(b"u", at(41))
    assert await cache_kit.cache.watermark() == at(45)


async def test_a_large_batch_is_written_whole(cache_kit: CacheKit) -> None:
    many: list[Write] = [put(f"n{number}", number) for number in range(1, 701)]
    many += [put(f"big{number}", 1000 + number, bytes(300_000)) for number in range(4)]
    assert await cache_kit.cache.apply(many, None, at(2000))
    assert await cache_kit.cache.watermark() == at(2000)
    for number in (1, 256, 257, 700):
        assert await cache_kit.cache.get("note", f"n{number}") == state(number)
    assert await cache_kit.cache.get("note", "big3") == Cached(bytes(300_000), at(1003))
