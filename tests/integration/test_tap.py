"""The tap under a real connection of nats-py: what is ours and what is nats-py's, also after a reconnect."""

from __future__ import annotations

import asyncio

import nats
from nats.aio.client import Client as NatsClient

from realtime.lean import Sink
from realtime.tap import Tap, listen
from tests.fixtures.eventually import eventually
from zephyr.stack.nats import NatsServer


async def counted(connection: NatsClient, sink: Sink, subject: str, count: int) -> list[bytes]:
    """Publishes numbers from another connection's point of view, and takes what comes of them."""
    for at in range(count):
        await connection.publish(subject, b"%d" % at, headers={"A": "b"} if at % 2 else None)
    payloads: list[bytes] = []

    async def all_came() -> bool:
        payloads.extend(payload for _, _, _, payload in sink.take())
        return len(payloads) >= count

    await eventually(all_came, what=f"{count} messages came")
    return payloads


async def test_ours_and_theirs_on_one_connection(nats_server: NatsServer) -> None:
    async with await nats.connect(nats_server.url) as connection:
        theirs = await connection.subscribe("both")
        sink = Sink(lambda: None)
        listening = await listen(connection, "both", sink)
        assert isinstance(connection._ps, Tap)
        assert await counted(connection, sink, "both", 3000) == [b"%d" % at for at in range(3000)]
        got = [await theirs.next_msg(timeout=20) for _ in range(3000)]
        assert [message.data for message in got] == [b"%d" % at for at in range(3000)]
        assert got[1].headers == {"A": "b"}

        await listening.close()
        await connection.publish("both", b"after")
        assert (await theirs.next_msg(timeout=20)).data == b"after"
        assert sink.take() == []
        assert not connection._ps.scanner.sinks


async def test_large_messages_and_pings_between_them(nats_server: NatsServer) -> None:
    async with await nats.connect(nats_server.url) as connection:
        sink = Sink(lambda: None)
        await listen(connection, "large", sink)
        for _ in range(5):
            await connection.publish("large", bytes(1_000_000), headers={"A": "b"})
            await connection.flush()
        await eventually(lambda: len(sink.messages) == 5, what="all messages came")
        messages = sink.take()
        assert [len(payload) for _, _, _, payload in messages] == [1_000_000] * 5
        assert messages[0][:3] == (b"large", b"", b"NATS/1.0\r\nA: b\r\n\r\n")


async def test_it_goes_on_after_the_broker_was_away(nats_server: NatsServer) -> None:
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    async def quiet(_: Exception) -> None:
        """That the broker goes away is no news here."""

    connection = await nats.connect(
        nats_server.url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        reconnected_cb=reconnected,
        error_cb=quiet,
    )
    try:
        sink = Sink(lambda: None)
        await listen(connection, "a", sink)
        assert len(await counted(connection, sink, "a", 10)) == 10
        await nats_server.stop()
        await nats_server.start()
        async with asyncio.timeout(20):
            await back.wait()
        assert len(await counted(connection, sink, "a", 10)) == 10
    finally:
        await connection.close()
