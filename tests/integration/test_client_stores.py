"""Subscriptions that go on after the cursor in a store, whatever happened to the program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from realtime.client import (
    Client,
    CursorStore,
    FileCursorStore,
    MemoryCursorStore,
    RedisCursorStore,
    earliest,
    live,
)
from realtime.cursor import Cursor
from realtime.errors import CursorInvalid, StoreUnavailable
from realtime.limits import StreamLimits
from realtime.services import stream_service
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import DEAD_REDIS, serving
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from zephyr.stack.nats import NatsServer


@pytest.fixture
async def address(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[str]:
    async with serving(nats_server.url) as address:
        yield address


@pytest.fixture(params=["memory", "file", "redis", "redis as text"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CursorStore]:
    if request.param == "memory":
        yield MemoryCursorStore()
    elif request.param == "file":
        yield FileCursorStore(tmp_path)
    else:
        url = request.getfixturevalue("redis_url")
        async with Redis.from_url(url, decode_responses="text" in request.param) as redis:
            await redis.flushdb()
            yield RedisCursorStore(redis)


async def test_runs_go_on_after_one_another(address: str, writer: StreamWriter, store: CursorStore) -> None:
    stored = await writer.commit_each(Change() for _ in range(30))
    got: list[int] = []
    async with Client(address) as client:
        for _ in range(6):
            async with client.subscribe(start=earliest(), store=store, name="n") as subscription:
                async for event in subscription:
                    got.append(event.sequence)
                    if len(got) % 5 == 0:
                        await subscription.save()
                        break
    assert got == sequences(stored)


async def test_the_last_one_comes_again_unless_it_is_said_to_be_handled(
    address: str, writer: StreamWriter
) -> None:
    await writer.commit(Change(), Change())
    store = MemoryCursorStore()
    async with Client(address) as client:
        for _ in range(2):
            async with client.subscribe(start=earliest(), store=store, name="n") as subscription:
                async for event in subscription:
                    assert event.sequence == 1
                    break


async def test_batches_are_saved_once_they_are_handled(address: str, writer: StreamWriter) -> None:
    stored = await writer.commit(*(Change() for _ in range(5)))
    store = MemoryCursorStore()
    async with (
        Client(address) as client,
        client.subscribe(start=earliest(), store=store, name="n") as subscription,
    ):
        async for batch in subscription.batches():
            assert await store.load("n") != subscription.cursor
            assert [event.sequence for event in batch] == sequences(stored)
            break
        await subscription.save()
        assert await store.load("n") == subscription.cursor


async def test_what_does_not_match_moves_the_stored_cursor_on(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that wants little does not find its cursor too old."""
    monkeypatch.setattr(stream_service, "StreamLimits", partial(StreamLimits, progress_s=0.2))
    store = MemoryCursorStore()
    async with (
        serving(nats_server.url) as address,
        Client(address) as client,
        client.subscribe(kinds=["user"], start=live(), store=store, name="n") as subscription,
    ):
        await subscription.ready()
        stored = await writer.commit(Change(), Change(), Change(kind="user"))
        async for event in subscription:
            assert event.sequence == stored[-1].sequence
            break
        stored = await writer.commit(*(Change() for _ in range(7)))
        reading = aiter(subscription)

        async def has_moved() -> bool:
            cursor = await store.load("n")
            return cursor is not None and Cursor.decode(cursor).sequence == stored[-1].sequence

        waiting = asyncio.ensure_future(anext(reading))
        await eventually(has_moved)  # with the heartbeat
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_redis_that_is_away_is_said(address: str, writer: StreamWriter) -> None:
    async with Redis.from_url(DEAD_REDIS) as redis, Client(address) as client:
        store = RedisCursorStore(redis)
        with pytest.raises(StoreUnavailable, match="Redis cannot be reached"):
            await client.subscribe(store=store, name="n").ready()
        with pytest.raises(StoreUnavailable):
            await store.save("n", Cursor(writer.epoch, 1, 1).encode())


async def test_a_key_that_holds_no_cursor_is_refused(address: str, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, Client(address) as client:
        await redis.set("mine:n", "%%%")
        with pytest.raises(CursorInvalid):
            await client.subscribe(store=RedisCursorStore(redis, "mine:"), name="n").ready()
