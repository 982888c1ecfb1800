"""The server as a process: it drains, is killed and comes back, and bears with clients that do not read."""

from __future__ import annotations

import asyncio
import json
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2

from protos.events.v1 import stream_pb2 as pb
from protos.wire import delimited
from realtime.client import Client
from realtime.status import from_error
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import earliest, raw_stream
from tests.fixtures.realtime_server import ServerProcess, health_stub
from tests.fixtures.stream_writer import Change, StreamWriter

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_sigterm_drains(server_process: ServerProcess, writer: StreamWriter) -> None:
    await server_process.start()
    async with raw_stream(server_process.address) as stream:
        await stream.open("a")
        await stream.caught_up("a")
        async with grpc.aio.insecure_channel(server_process.address) as channel:
            watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            server_process.send(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            frame = await stream.read()
            assert frame.WhichOneof("response") == "going_away"
            assert 0 < frame.going_away.retry_after_ms <= 2000
            assert frame.subscription_id == ""
            assert await stream.call.read() is grpc.aio.EOF
            assert await stream.call.code() is grpc.StatusCode.OK
    assert await server_process.ended() == 0
    assert "Traceback" not in server_process.log


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    server_process._environment["ZEPHYR_DRAIN_S"] = "1"
    await server_process.start()
    async with raw_stream(server_process.address) as stream, raw_stream(server_process.address) as other:
        await stream.open("a", start=earliest())
        await stream.open("b", start=earliest())
        await other.open("c")
        for _ in range(5):
            await writer.commit(*(Change(size=5000) for _ in range(500)))
        await other.until(lambda: len(other["c"].events) == 2500)
        server_process.send(signal.SIGTERM)
        assert await server_process.ended(10) == 0
    assert "Traceback" not in server_process.log


async def test_killed_and_started_again_each_event_comes_once(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    received: list[str] = []
    async with (
        Client(server_process.address) as client,
        client.subscribe(kinds=["note"]) as subscription,
    ):
        await subscription.ready()

        async def listen() -> None:
            async for each in subscription:
                event = each.event
                received.append(event.id)

        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen())
            for number in (signal.SIGKILL, signal.SIGTERM):
                await writer.commit_each(Change() for _ in range(50))
                await eventually(lambda: len(received) >= len(writer.stored) - 10)
                server_process.send(number)
                await writer.commit_each(Change() for _ in range(50))
                await server_process.ended()
                await server_process.start()
                await writer.commit_each(Change() for _ in range(50))
                await eventually(lambda: len(received) >= len(writer.stored), 20)
            listening.cancel()
        assert received == [stored.id for stored in writer.stored]
        assert subscription.reconnections == 2
    assert "Traceback" not in server_process.log


async def test_clients_that_vanish_leave_nothing_behind(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    for _ in range(20):
        async with raw_stream(server_process.address) as stream:
            await stream.open("a", start=earliest())
            await writer.commit(Change(size=100_000))
    async with raw_stream(server_process.address) as stream:
        await stream.open("a", start=earliest())
        await stream.until(lambda: len(stream["a"].events) == 20)
    server_process.send(signal.SIGTERM)
    assert await server_process.ended() == 0
    assert "Traceback" not in server_process.log
    assert "streams=0" in server_process.log or "streams=1" in server_process.log


async def test_retention_under_the_servers_own_reader_is_no_silent_gap(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await writer.delete()
    await writer.create(max_msgs=200)
    await server_process.start()
    async with raw_stream(server_process.address) as stream:
        await stream.open("a")
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].events)
        server_process.send(signal.SIGSTOP)
        await writer.commit_each(Change(size=20_000) for _ in range(3000))
        server_process.send(signal.SIGCONT)
        error = from_error((await stream.closed("a")).error)
        assert error.reason == "EXPIRED"
        got = stream["a"].sequences
        assert got == list(range(1, len(got) + 1))
        await stream.open("b", start=earliest())
        await stream.until(lambda: stream["b"].through == 3001)
        assert stream["b"].sequences == list(range(2802, 3002))


async def test_memory_holds_under_a_client_that_never_reads(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    async with raw_stream(server_process.address) as stream, raw_stream(server_process.address) as other:
        await stream.open("a")
        await other.open("b")
        for _ in range(10):
            await writer.commit(*(Change(size=4000) for _ in range(500)))
        await other.until(lambda: len(other["b"].events) == 5000)
        query = pb.SubscribeRequest(progress=pb.ProgressQuery(subscription_id="a", nonce="x" * 64))
        padded = query.SerializeToString() + delimited(99, b"x" * 10_000)
        for _ in range(20_000):
            writing = asyncio.ensure_future(stream.send(padded))
            done, _ = await asyncio.wait((writing,), timeout=1)
            if not done:
                writing.cancel()
                break
        else:
            pytest.fail("the server took in requests without an end")
        await writer.commit(Change())
        await other.until(lambda: len(other["b"].events) == 5001)
        assert server_process.memory_bytes < 300 * 1024 * 1024


async def test_the_ready_file_is_json(server_process: ServerProcess, writer: StreamWriter) -> None:
    await server_process.start()
    assert set(json.loads(server_process._ready.read_bytes())) == {"grpc", "pid"}
