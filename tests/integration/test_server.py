"""The server as a whole: what it waits for, what it cannot begin without, how it goes; health, reflection, reads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import psycopg
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.events.v1 import read_pb2
from realtime.client import Client
from realtime.errors import ArgumentInvalid, NotFound, SettingInvalid, SourceUnavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import after, earliest, raw_stream
from tests.fixtures.realtime_server import health_stub, serving
from tests.fixtures.stream_writer import Change, StreamWriter
from zephyr.stack.nats import NatsServer
from zephyr.stack.server import free_port
from zephyr.stack.valkey import ValkeyServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "zephyr.events.v1.StreamService", "zephyr.events.v1.ReadService")


async def test_what_is_queued_is_sent_before_the_server_goes(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with AsyncExitStack() as stack:
        async with serving(nats_server.url, drain_s=10) as address:
            stream = await stack.enter_async_context(raw_stream(address))
            await stream.open("a")
            await stream.caught_up("a")
            async with raw_stream(address) as other:
                await other.open("b")
                await writer.commit(*(Change(size=1000) for _ in range(900)))
                await other.until(lambda: len(other["b"].events) == 900)
            reading = asyncio.ensure_future(stream.until(lambda: stream.is_over))
        with pytest.raises(AssertionError, match="the server ended the stream"):
            await reading
        assert stream["a"].sequences == list(range(1, 901))


async def test_health_and_reflection(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, grpc.aio.insecure_channel(address) as channel:
        health = health_stub(channel)
        for service in SERVICES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = (await call.read()).list_services_response.service
        assert {*SERVICES[1:], "grpc.health.v1.Health"} <= {service.name for service in listed}
        for symbol, message in ((SERVICES[1], "SubscribeRequest"), (SERVICES[2], "GetNoteRequest")):
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            files = (await call.read()).file_descriptor_response.file_descriptor_proto
            found = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in files]
            assert message in {each.name for file in found for each in file.message_type}
        call.cancel()


async def test_it_waits_for_the_stream_and_says_so(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.delete()
    address = f"127.0.0.1:{free_port()}"

    async def status() -> int:
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                check = health_stub(channel).Check(health_pb2.HealthCheckRequest())
                return int((await check).status)
            except grpc.aio.AioRpcError:
                return 0

    async def create() -> None:
        await eventually(lambda: status_is(NOT_SERVING))
        await writer.create()

    async def status_is(wanted: int) -> bool:
        return await status() == wanted

    creating = asyncio.ensure_future(create())
    async with serving(nats_server.url, listen=address):
        await creating
        assert await status_is(SERVING)


async def test_it_says_what_it_cannot_begin_without(nats_server: NatsServer, writer: StreamWriter) -> None:
    with pytest.raises(
        SourceUnavailable, match=r"NATS cannot be reached at nats://127.0.0.1:9: .*Connect call failed"
    ):
        async with serving("nats://127.0.0.1:9"):
            pass
    async with serving(nats_server.url) as address:
        with pytest.raises(SettingInvalid, match=f"cannot listen on {address}"):
            async with serving(nats_server.url, listen=address):
                pass


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    for words, code in (
        (("--nats-url", "nats://127.0.0.1:9"), 3),
        (("--listen", "nowhere"), 2),
        (("--redis-url", "what"), 2),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "zephyr", "serve", *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""


async def test_reads_go_on_without_redis(
    nats_server: NatsServer, writer: StreamWriter, migrated_dsn: str, spare_valkey: ValkeyServer
) -> None:
    with psycopg.connect(migrated_dsn, autocommit=True) as sql:
        (workspace,) = sql.execute(
            "INSERT INTO workspaces (slug, name) VALUES ('s', 'n') RETURNING id"
        ).fetchone() or (None,)
        (note,) = sql.execute(
            "INSERT INTO notes (workspace_id, title) VALUES (%s, 'in postgres') RETURNING id", (workspace,)
        ).fetchone() or (None,)
        (user,) = sql.execute("INSERT INTO users (email) VALUES ('a@b') RETURNING id").fetchone() or (None,)
    in_stream = Change()
    async with (
        serving(nats_server.url, redis_url=spare_valkey.url, postgres_dsn=migrated_dsn) as address,
        Client(address) as client,
        raw_stream(address) as stream,
    ):
        await writer.commit(in_stream)

        async def is_cached() -> bool:
            try:
                answer = await client.get_note(in_stream.entity)
            except NotFound:
                return False
            return answer.source == read_pb2.READ_SOURCE_CACHE

        await eventually(is_cached)
        answer = await client.get_note(in_stream.entity)
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        assert answer.cursor == stream["a"].events[0].cursor
        await stream.open("b", start=after(answer.cursor))
        await spare_valkey.kill()
        assert (await client.get_note(str(note))).note.title == "in postgres"
        assert (await client.get_user(str(user))).user.email == "a@b"
        with pytest.raises(NotFound):
            await client.get_note(str(uuid.uuid4()))
        with pytest.raises(ArgumentInvalid):
            await client.get_user("x")
        await writer.commit(Change())
        await stream.until(lambda: stream["b"].events)
        await spare_valkey.restart()
        await eventually(is_cached, 20)
