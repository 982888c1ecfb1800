"""Handlers that are slow, that fail and that are cancelled: nothing is lost, and the server waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from realtime.client import (
    Client,
    CreditWindow,
    MemoryCursorStore,
    earliest,
)
from realtime.errors import LimitExceeded
from tests.fixtures.client_kit import Collector, take
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from tests.fixtures.tcp_proxy import tcp_proxy
from zephyr.stack.nats import NatsServer


@pytest.fixture
async def address(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[str]:
    async with serving(nats_server.url) as address:
        yield address


async def test_a_slow_handler_pauses_the_server(address: str, writer: StreamWriter) -> None:
    window = CreditWindow(messages=40, bytes=200_000)
    stored = await writer.commit_each(Change(size=1000) for _ in range(4000))
    async with (
        tcp_proxy(address) as proxy,
        Client(proxy.address) as client,
        client.subscribe(start=earliest(), credit=window) as subscription,
    ):
        got: list[int] = []
        async for event in subscription:
            got.append(event.sequence)
            if len(got) in (1, 15, 30):
                # The handler takes its time: all that may come comes, and then nothing more.
                before = -1
                while before != proxy.answered_bytes:
                    before = proxy.answered_bytes
                    await eventually(_turns(10))
                handled = 1500 * (len(got) + window.messages) + 20_000
                assert proxy.answered_bytes < handled
                assert subscription.waiting_bytes <= window.bytes
            if len(got) == len(stored):
                break
        assert got == sequences(stored)


def _turns(count: int) -> Callable[[], bool]:
    """Not yet for so many looks: time enough on loopback for what is under way to come."""
    left = iter(range(count))
    return lambda: next(left, None) is None


@pytest.mark.parametrize(
    "window", [CreditWindow(1, 1), CreditWindow(7, 10_000_000), CreditWindow(10_000, 3000)]
)
async def test_no_window_is_too_small(address: str, writer: StreamWriter, window: CreditWindow) -> None:
    """Counted otherwise than the server does, the credit would run out sooner or later."""
    stored = await writer.commit_each(Change(size=n % 300) for n in range(300))
    stored += await writer.commit(*(Change(size=500) for _ in range(100)))
    async with Client(address) as client, client.subscribe(start=earliest(), credit=window) as subscription:
        assert await take(subscription, len(stored)) == sequences(stored)
        stored = await writer.commit(Change())
        assert await take(subscription, 1) == sequences(stored)


async def test_what_a_handler_raised_on_comes_again(address: str, writer: StreamWriter) -> None:
    stored = await writer.commit(*(Change() for _ in range(5)))
    store = MemoryCursorStore()
    handled: list[int] = []
    async with Client(address) as client:

        async def fail() -> None:
            async with client.subscribe(start=earliest(), store=store, name="billing") as subscription:
                async for event in subscription:
                    if event.sequence == 3:
                        raise ZeroDivisionError
                    handled.append(event.sequence)

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with client.subscribe(start=earliest(), store=store, name="billing") as subscription:
            async for event in subscription:
                handled.append(event.sequence)
                if len(handled) == len(stored):
                    break
    assert handled == sequences(stored)


async def test_an_iteration_that_is_cancelled_goes_on_where_it_was(
    address: str, writer: StreamWriter
) -> None:
    stored = await writer.commit_each(Change() for _ in range(200))
    async with Client(address) as client, client.subscribe(start=earliest()) as subscription:
        got: list[int] = []
        while len(got) < len(stored):
            reading = Collector(subscription)
            await eventually(lambda reading=reading: reading.events)  # type: ignore[misc]
            reading.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading.task
            got += reading.sequences
        assert got == sequences(stored)
        assert subscription.reconnections == 0
        waiting = Collector(subscription)
        await eventually(lambda: subscription.is_caught_up)
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting.task
        stored = await writer.commit(Change())
        assert await take(subscription, 1) == sequences(stored)
        assert subscription.reconnections == 0


async def test_who_asks_for_it_is_disconnected_when_slow(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with (
        serving(nats_server.url, ring_entries=64) as address,
        Client(address) as client,
        client.subscribe(overflow="disconnect", credit=CreditWindow(1, 1000)) as subscription,
    ):
        await subscription.ready()
        await writer.commit_each(Change(size=1000) for _ in range(6000))
        with pytest.raises(LimitExceeded, match="reads more slowly"):
            await take(subscription, 6000)
