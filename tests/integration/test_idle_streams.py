"""What an idle stream holds in the server: nothing that only waits, and what it needs again is there in time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest

from protos.events.v1 import stream_pb2 as pb
from realtime.jetstream import StreamReader
from realtime.services.stream_service import StreamService
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import RawStream, after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, Stored, StreamWriter, sequences
from zephyr.stack.nats import NatsServer

OF_A_STREAM = {"ClientStream", "Sender", "StreamAccess"}
OF_A_SUBSCRIPTION = {"keep_up", "reach", "_until_reset", "_follow"}


def tasks_of_streams() -> list[str]:
    """Tasks of this process that belong to a stream or a subscription; gRPC's own run the calls themselves."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.split(".")[0] in OF_A_STREAM | OF_A_SUBSCRIPTION]


async def has_all(stream: RawStream, stored: list[Stored]) -> None:
    """Reads until each subscription has these last."""
    wanted = sequences(stored)
    await stream.until(
        lambda: all(each.sequences[-len(wanted) :] == wanted for each in stream.accounts.values())
    )


async def test_a_subscription_at_the_live_edge_and_an_idle_stream_have_no_task(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, AsyncExitStack() as clients:
        streams = [await clients.enter_async_context(raw_stream(address)) for _ in range(5)]
        for stream in streams:
            for name in ("a", "b"):
                await stream.open(name)
                await stream.caught_up(name)
        for _ in range(3):
            await eventually(lambda: not tasks_of_streams())
            (stored,) = await writer.commit(Change())
            for stream in streams:
                await has_all(stream, [stored])


async def test_one_that_fell_behind_is_brought_back_and_left_alone_again(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url, ring_entries=64) as address, raw_stream(address) as stream:

        def is_back() -> bool:
            return stream["a"].said.count("caught_up") > stream["a"].said.count("fell_behind")

        await stream.open("a", credit=pb.Credit(messages=0))
        await stream.caught_up("a")
        for _ in range(2):
            await eventually(lambda: not tasks_of_streams())
            stored = await writer.commit_each(Change() for _ in range(300))
            await stream.until(lambda: stream["a"].said[-1:] == ["fell_behind"])
            grant = pb.CreditGrant(subscription_id="a", credit=pb.Credit(messages=len(stored)))
            await stream.send(pb.SubscribeRequest(credit=grant))
            await has_all(stream, stored)
            await stream.until(is_back)


async def test_cursors_that_the_ring_holds_are_not_asked_of_the_broker(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = StreamReader.timestamp_ns

    async def timestamp_ns(reader: StreamReader, sequence: int) -> int | None:
        asked.append(sequence)
        return await ask(reader, sequence)

    stored = await writer.commit_each(Change() for _ in range(200))
    async with serving(nats_server.url, ring_entries=64) as address, raw_stream(address) as stream:
        await stream.open("all", start=earliest())
        await stream.until(lambda: len(stream["all"].events) == 200)
        monkeypatch.setattr(StreamReader, "timestamp_ns", timestamp_ns)
        old, young = stream["all"].events[50], stream["all"].events[190]
        for name, event in (("old", old), ("young", young)):
            await stream.open(name, start=after(event.cursor))
            await stream.until(lambda name=name: stream[name].through == stored[-1].sequence)  # type: ignore[misc]
        assert asked == [old.sequence]
        assert stream["young"].sequences == sequences(stored[191:])


async def test_streams_that_end_leave_the_wheel(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    services: list[StreamService] = []
    handler = StreamService.handler

    def seen(service: StreamService) -> grpc.GenericRpcHandler:
        services.append(service)
        return handler(service)

    monkeypatch.setattr(StreamService, "handler", seen)
    async with serving(nats_server.url) as address:
        for _ in range(3):
            async with raw_stream(address) as stream:
                await stream.open("a")
                assert sum(len(slot) for slot in services[0]._heartbeats._slots) == 1
            await eventually(lambda: not any(services[0]._heartbeats._slots))
        assert services[0].streams == 0
