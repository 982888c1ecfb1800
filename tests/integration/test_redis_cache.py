"""What Redis can do to a cache that memory cannot: lose a part, lose all amid a batch, let keys expire."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from redis.asyncio import Redis

from realtime.cache import Cached, Clear, Put, RedisCache
from tests.fixtures.read_kit import EPOCH, LIMIT_S, at
from zephyr.stack.valkey import ValkeyServer


async def test_losing_the_meta_hash_alone_is_losing_all(own_valkey: ValkeyServer) -> None:
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(own_valkey.url, prefix, read_timeout_s=1)
    try:
        await cache.apply([Put("note", "a", at(1), b"1"), Clear("note", at(2))], None, at(2))
        assert await cache.get("note", "a") == Cached(None, at(2))
        async with Redis.from_url(own_valkey.url) as redis:
            await redis.delete(f"{prefix}meta")
        # The truncation was lost with it: the state from before must not come back.
        assert await cache.get("note", "a") is None
        assert await cache.watermark() is None
        assert not await cache.apply([], at(2), at(3))
    finally:
        await cache.close()


@pytest.mark.parametrize("other_writer", [False, True])
async def test_a_flush_amid_a_batch_leaves_no_watermark_without_its_states(
    own_valkey: ValkeyServer, other_writer: bool
) -> None:
    """The states of the first chunks are lost: the last chunk must not say that they stand,
    nor when another writer has begun anew in between."""
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(own_valkey.url, prefix, read_timeout_s=1)
    writes = [Put("note", f"n{number}", at(number), bytes(200)) for number in range(1, 2001)]
    flushed_amid = 0
    try:
        async with Redis.from_url(own_valkey.url) as redis:
            for _ in range(15):
                await redis.flushall()
                async with asyncio.TaskGroup() as tasks:
                    applying = tasks.create_task(cache.apply(writes, None, at(2000)))
                    async with asyncio.timeout(LIMIT_S):
                        while int(await redis.dbsize()) < 300:
                            pass  # each turn is a round trip: a pause would miss the middle
                    async with redis.pipeline(transaction=True) as both:
                        both.flushall()
                        if other_writer:
                            began = ["generation", "f" * 16, "watermark", f"{EPOCH}{1:016x}{10:016x}"]
                            both.hset(f"{prefix}meta", items=began)
                        await both.execute()
                flushed_amid += not applying.result()
                if await cache.watermark() == at(2000):
                    assert await redis.dbsize() == 2001
        assert flushed_amid
    finally:
        await cache.close()


async def test_tombstones_expire_and_an_unfinished_beginning_does_too(own_valkey: ValkeyServer) -> None:
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(own_valkey.url, prefix, read_timeout_s=1)
    try:
        async with Redis.from_url(own_valkey.url) as redis:
            await cache.apply([Put("note", "a", at(1), None), Put("note", "b", at(2), b"2")])
            assert 86_000 < await redis.ttl(f"{prefix}note:a") <= 86_400
            assert await redis.ttl(f"{prefix}note:b") == -1
            assert 0 < await redis.ttl(f"{prefix}meta") <= 60
            await cache.apply([], None, at(2))
            assert await redis.ttl(f"{prefix}meta") == -1
    finally:
        await cache.close()
