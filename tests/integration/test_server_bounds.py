"""The server's memory under clients that ask for too much, and that do not read."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_pb2 as pb
from tests.fixtures.raw_stream import earliest, raw_stream
from tests.fixtures.realtime_server import ServerProcess
from tests.fixtures.stream_writer import Change, StreamWriter

MIB = 1024 * 1024


async def test_ten_thousand_opens_on_one_stream(server_process: ServerProcess, writer: StreamWriter) -> None:
    many, most = 10_000, 100
    await server_process.start()
    async with (
        raw_stream(server_process.address) as greedy,
        raw_stream(server_process.address) as other,
        asyncio.TaskGroup() as tasks,
    ):
        await other.open("a")
        before = server_process.memory_bytes

        async def flood() -> None:
            for at in range(many):
                await greedy.send(pb.SubscribeRequest(open=pb.OpenSubscription(subscription_id=f"s{at}")))

        flooding = tasks.create_task(flood())
        await writer.commit(Change())
        await other.until(lambda: other["a"].events)
        refused = ready = 0
        while refused + ready < many:
            frame = await greedy.read()
            if frame.HasField("closed"):
                assert frame.closed.error.code == codes.ERROR_CODE_RESOURCE_EXHAUSTED
                refused += 1
            ready += frame.HasField("ready")
        await flooding
        assert (ready, refused) == (most, many - most)
        await writer.commit(Change())
        await greedy.until(lambda: all(greedy[f"s{at}"].sequences[-1:] == [2] for at in range(most)), 30)
        await other.until(lambda: len(other["a"].events) == 2)
        assert server_process.memory_bytes - before < 50 * MIB


async def test_connections_that_do_not_read_have_a_bound_each(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    clients, subscriptions, stored = 4, 50, 6000
    for _ in range(stored // 500):
        await writer.commit_each(Change(size=4000) for _ in range(500))
    await server_process.start()
    async with AsyncExitStack() as stack, raw_stream(server_process.address) as other:
        await other.open("a")
        before = server_process.memory_bytes
        for _ in range(clients):
            stream = await stack.enter_async_context(raw_stream(server_process.address))
            for at in range(subscriptions):
                await stream.open(f"s{at}", start=earliest(), wait=False)
        # The pages of the past are read in the order in which they were asked for: the others have theirs by then.
        await other.open("b", start=earliest())
        await other.until(lambda: other["b"].said[-1:] == ["caught_up"], 60)
        assert len(other["b"].events) == stored
        for _ in range(4):
            await writer.commit_each(Change(size=4000) for _ in range(500))
        await other.until(lambda: len(other["a"].events) == 2000, 60)
        # 16 MiB are queued for a connection; what is kept of pages and what gRPC holds comes to it.
        assert server_process.most_memory_bytes - before < clients * 32 * MIB + 64 * MIB
