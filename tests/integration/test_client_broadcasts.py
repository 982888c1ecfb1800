"""The client's broadcasts on a real server: sent, received among events, and dropped where nobody reads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from protos.models.v1.note_pb2 import Note
from realtime.client import (
    BroadcastEvent,
    BroadcastsDropped,
    Client,
    ReceivedEvent,
    Reconnected,
    earliest,
)
from realtime.errors import ArgumentInvalid, LimitExceeded, RealtimeError, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

WORKSPACE = new_id()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_broadcasts_among_events(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit(*(Change(workspace=WORKSPACE) for _ in range(3)))
    note, when = new_id(), datetime(2026, 1, 2, tzinfo=UTC)
    async with (
        serving(nats_server.url, publish_types="google.protobuf.StringValue") as address,
        Client(address) as client,
        client.subscribe(workspace=WORKSPACE, start=earliest(), broadcasts=True) as subscription,
    ):
        await subscription.ready()
        await client.broadcast(
            kind="note",
            entity=note,
            verb="typing",
            workspace=WORKSPACE,
            data=Note(id=note, title="t"),
            actor="ann",
            time=when,
            correlation_id="c",
            traceparent=TRACE,
        )
        events: list[int] = []
        heard: list[BroadcastEvent] = []
        async with asyncio.timeout(10):
            async for item in subscription:
                if isinstance(item, ReceivedEvent):
                    events.append(item.sequence)
                elif isinstance(item, BroadcastEvent):
                    heard.append(item)
                if len(events) == 3 and heard:
                    break
        (said,) = heard
        assert events == [1, 2, 3]
        assert (said.kind, said.verb, said.event.actor) == ("note", "typing", "ann")
        assert said.event.note == Note(id=note, title="t")
        assert said.event.time == int(when.timestamp() * 1_000_000)
        assert (said.event.correlation_id, said.event.traceparent) == ("c", TRACE)
        await client.broadcast(
            kind="note", entity=note, verb="drawn", workspace=WORKSPACE, data=StringValue(value="x")
        )
        async with asyncio.timeout(10):
            async for batch in subscription.batches():
                assert isinstance(batch, BroadcastEvent)
                value = StringValue()
                assert batch.event.other.Unpack(value)
                assert value.value == "x"
                break
        assert subscription.cursor


async def test_who_did_not_ask_gets_none(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with (
        serving(nats_server.url) as address,
        Client(address) as client,
        client.subscribe() as plain,
        client.subscribe(broadcasts=True) as listening,
    ):
        await plain.ready()
        await listening.ready()
        await client.broadcast(kind="note", entity="n", verb="typing", workspace=WORKSPACE)
        async with asyncio.timeout(10):
            async for item in listening:
                assert isinstance(item, BroadcastEvent)
                break
            await writer.commit(Change())
            async for event in plain:
                assert event.sequence == 1
                break


async def test_what_is_refused(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url, broadcast_bytes=2000) as address, Client(address) as client:
        with pytest.raises(ArgumentInvalid, match=r"event\.verb") as caught:
            await client.broadcast(kind="note", entity="n", verb="deleted", workspace=WORKSPACE)
        assert "a verb of your " in caught.value.mend
        with pytest.raises(LimitExceeded, match="at most 2000"):
            await client.broadcast(kind="note", entity="n", verb="typing", data=Note(body="x" * 2000))
        await nats_server.stop()

        async def says_that_it_is_away() -> bool:
            try:
                await client.broadcast(kind="note", entity="n", verb="typing")
            except Unavailable:
                return True
            return False

        await eventually(says_that_it_is_away)
    with pytest.raises(RealtimeError, match="the client was closed"):
        await client.broadcast(kind="note", entity="n", verb="typing")


async def test_a_slow_loop_keeps_its_events_and_counts_what_it_missed(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    sent = 1000
    async with (
        serving(nats_server.url) as address,
        Client(address) as client,
        Client(address) as other,
        client.subscribe(broadcasts=True) as slow,
        other.subscribe(broadcasts=True) as quick,
    ):
        await slow.ready()
        await quick.ready()
        iterator, heard = aiter(slow), aiter(quick)
        for at in range(sent):
            await client.broadcast(kind="note", entity=f"n{at}", verb="typing", workspace=WORKSPACE)
            async with asyncio.timeout(10):
                item = await anext(heard)  # the other loop keeps up
            assert isinstance(item, BroadcastEvent)
            assert item.event.subject == f"n{at}"
        stored = await writer.commit(Change(workspace=WORKSPACE))
        delivered = dropped = 0
        events: list[int] = []
        async with asyncio.timeout(20):
            while delivered + dropped < sent or not events:
                item = await anext(iterator)
                if isinstance(item, BroadcastEvent):
                    delivered += 1
                elif isinstance(item, BroadcastsDropped):
                    dropped += item.count
                else:
                    events.append(item.sequence)
        assert delivered + dropped == sent
        assert 0 < delivered <= 256, "what waits for the loop is bounded"
        assert events == [stored[0].sequence]


async def test_it_listens_again_when_its_server_was_killed(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    async with (
        Client(server_process.address) as client,
        client.subscribe(broadcasts=True, signals=True) as subscription,
    ):
        await subscription.ready()
        await server_process.kill()
        await server_process.start()
        iterator = aiter(subscription)
        async with asyncio.timeout(30):
            while not isinstance(await anext(iterator), Reconnected):
                pass
            await client.broadcast(kind="note", entity="n", verb="typing")
            while not isinstance(item := await anext(iterator), BroadcastEvent):
                pass
        assert item.event.subject == "n"
