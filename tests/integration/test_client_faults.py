"""The client while servers, networks and handlers fail, on real sockets."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from realtime.client import (
    CaughtUp,
    Client,
    CreditWindow,
    MemoryCursorStore,
    ReceivedEvent,
    Reconnected,
    Subscription,
    after,
    earliest,
    live,
)
from realtime.errors import CursorReset, LimitExceeded
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from tests.fixtures.tcp_proxy import tcp_proxy
from zephyr.stack.nats import NatsServer


async def take(subscription: Subscription, count: int, timeout: float = 20) -> list[int]:
    result: list[int] = []
    async with asyncio.timeout(timeout):
        async for event in subscription:
            result.append(event.sequence)
            if len(result) == count:
                break
    return result


class Collector:
    """Iterates a subscription in the background; the events that came."""

    def __init__(self, subscription: Subscription) -> None:
        self.events: list[ReceivedEvent] = []
        self.subscription = subscription
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async for event in self.subscription:
            self.events.append(event)

    @property
    def sequences(self) -> list[int]:
        return [event.sequence for event in self.events]


@pytest.fixture
async def address(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[str]:
    async with serving(nats_server.url) as address:
        yield address


async def test_the_server_is_killed_again_and_again(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    stored = await writer.commit_each(Change(size=100) for _ in range(300))
    async with Client(server_process.address) as client, client.subscribe(start=earliest()) as subscription:
        got = await take(subscription, 50)
        for _ in range(3):
            await server_process.kill()
            stored += await writer.commit_each(Change() for _ in range(20))
            await server_process.start()
            got += await take(subscription, 60)
        got += await take(subscription, len(stored) - len(got))
        assert got == sequences(stored)
        assert subscription.reconnections >= 1


@pytest.mark.parametrize("graceful", [True, False])
async def test_nats_goes_away_and_comes_back(
    address: str, nats_server: NatsServer, writer: StreamWriter, graceful: bool
) -> None:
    async with Client(address) as client, client.subscribe() as subscription:
        await subscription.ready()
        stored = await writer.commit(Change(), Change())
        collected = Collector(subscription)
        await eventually(lambda: collected.sequences == sequences(stored))
        await (nats_server.stop() if graceful else nats_server.kill())
        await nats_server.restart()
        await eventually(lambda: writer.connection.is_connected)
        stored += await writer.commit(Change(), Change())
        await eventually(lambda: collected.sequences == sequences(stored), 20)
        await subscription.close()
        await collected.task


async def test_a_half_open_connection_is_left_for_another(address: str, writer: StreamWriter) -> None:
    async with (
        tcp_proxy(address) as proxy,
        Client(proxy.address, silence_s=1.5) as client,
        client.subscribe() as subscription,
        client.subscribe() as other,
    ):
        await subscription.ready()
        await other.ready()
        stored = await writer.commit(Change())
        collected = [Collector(subscription), Collector(other)]
        await eventually(lambda: all(each.sequences == sequences(stored) for each in collected))
        proxy.swallow()
        stored += await writer.commit(Change(), Change())
        await eventually(lambda: all(each.sequences == sequences(stored) for each in collected), 15)
        # The old connection was not given back to them.
        assert proxy.connections >= 2
        assert subscription.reconnections >= 1
        for each in collected:
            await each.subscription.close()
            await each.task


async def test_a_frozen_server_is_tried_again_until_it_thaws(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    async with (
        Client(server_process.address, silence_s=1.0) as client,
        client.subscribe(signals=True) as subscription,
    ):
        await subscription.ready()
        said: list[object] = []

        async def listen() -> None:
            async for item in subscription:
                said.append(item)  # noqa: PERF401  # each is looked at when it comes

        listening = asyncio.ensure_future(listen())
        stored = await writer.commit(Change())
        await eventually(lambda: any(isinstance(item, ReceivedEvent) for item in said))
        server_process.send(signal.SIGSTOP)
        await eventually(lambda: not subscription.is_caught_up)
        stored += await writer.commit(Change(), Change())
        server_process.send(signal.SIGCONT)

        def got() -> list[int]:
            return [item.sequence for item in said if isinstance(item, ReceivedEvent)]

        await eventually(lambda: got() == sequences(stored), 20)
        assert any(isinstance(item, Reconnected) and "silent for 1 s" in item.cause for item in said)
        await subscription.close()
        await listening


async def test_silence_that_the_server_means_is_no_fault(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    """The heartbeat comes within the default limit: nothing is connected anew while nothing happens."""
    async with (
        serving(nats_server.url) as address,
        Client(address, silence_s=11.5) as client,
        client.subscribe() as subscription,
    ):
        await subscription.ready()
        collected = Collector(subscription)
        heard = subscription.source
        await eventually(lambda: subscription.source is not heard, 15)
        await writer.commit(Change())
        await eventually(lambda: collected.sequences == [1])
        assert subscription.reconnections == 0
        await subscription.close()
        await collected.task


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


async def test_a_lost_epoch_is_raised_with_where_to_go_on(address: str, writer: StreamWriter) -> None:
    await writer.commit(Change())
    async with Client(address) as client, client.subscribe(start=earliest()) as subscription:
        assert await take(subscription, 1) == [1]
        await writer.delete()
        await writer.create()
        stored = await writer.commit(Change(), Change())
        with pytest.raises(CursorReset) as caught:
            await take(subscription, 1)
        assert (caught.value.reason, caught.value.action) == ("EPOCH_CHANGED", "FETCH_STATE")
        async with client.subscribe(start=after(caught.value.earliest_cursor)) as anew:
            assert await take(anew, 2) == sequences(stored)


async def test_signals_say_what_the_connection_does(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    async with (
        Client(server_process.address) as client,
        client.subscribe(start=live(), signals=True) as subscription,
    ):
        said: list[object] = []

        async def listen() -> None:
            async for item in subscription:
                said.append(item)  # noqa: PERF401  # each is looked at when it comes

        listening = asyncio.ensure_future(listen())
        await eventually(lambda: any(isinstance(item, CaughtUp) for item in said))
        await server_process.kill()
        await server_process.start()
        await eventually(lambda: any(isinstance(item, Reconnected) for item in said), 20)
        await writer.commit(Change())
        await eventually(lambda: isinstance(said[-1], ReceivedEvent))
        await subscription.close()
        await listening
