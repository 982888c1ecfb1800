"""Streams that last: they are told that the server is alive, also when nothing is subscribed, and when it goes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from protos.events.v1 import stream_pb2 as pb
from realtime import app
from realtime.client import channel
from realtime.limits import StreamLimits
from realtime.services import stream_service
from realtime.settings import ServerSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from tests.fixtures.tcp_proxy import tcp_proxy
from zephyr.stack.nats import NatsServer

LONGEST_SILENCE_S = 15


async def test_a_stream_without_subscriptions_is_told_that_the_server_is_alive(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert StreamLimits().progress_s < LONGEST_SILENCE_S
    monkeypatch.setattr(stream_service, "StreamLimits", partial(StreamLimits, progress_s=0.2))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for _ in range(3):
            assert (await stream.read()).HasField("progress")
        assert len(stream.stream_frames) == 3
        await stream.open("a")
        told = len(stream.stream_frames)
        for _ in range(3):
            await stream.read()
        assert len(stream.stream_frames) == told, "now the subscription says it"
        assert "progress" in stream["a"].said
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].events)


@pytest.mark.parametrize("subscriptions", [3, 100])
async def test_idle_subscriptions_of_a_stream_are_told_how_far_they_are_by_turns(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch, subscriptions: int
) -> None:
    """At most ten frames in each ``progress_s``, however many they are; and nobody twice before all the others."""
    progress_s = 0.2
    monkeypatch.setattr(stream_service, "StreamLimits", partial(StreamLimits, progress_s=progress_s))
    names = [str(number) for number in range(subscriptions)]
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for name in names:
            await stream.open(name, pb.Filter(kinds=["user"]), wait=False)
        await stream.until(lambda: all("caught_up" in stream[name].said for name in names))
        (stored,) = await writer.commit(Change(kind="note"))  # for none of them
        began = asyncio.get_running_loop().time()
        told: list[str] = []
        while len(told) < 3 * subscriptions:
            frame = await stream.read()
            assert frame.HasField("progress"), frame
            told.append(frame.subscription_id)
        took_s = asyncio.get_running_loop().time() - began
        assert len(told) <= 10 * took_s / progress_s + 10, "a few may have been on the way"
        for first in range(0, len(told), subscriptions):
            assert sorted(told[first : first + subscriptions]) == sorted(names)
        assert all((stream[name].through or 0) >= stored.sequence for name in names)


async def test_clients_are_told_to_come_back_at_different_times(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with AsyncExitStack() as clients:
        async with serving(nats_server.url) as address:
            streams = [await clients.enter_async_context(raw_stream(address)) for _ in range(8)]
            for stream in streams:
                await stream.open("a")
        waits = set()
        for stream in streams:
            frame = await stream.read()
            while not frame.HasField("going_away"):
                frame = await stream.read()
            waits.add(frame.going_away.retry_after_ms)
    assert len(waits) > 1
    assert all(0 < wait <= 2000 for wait in waits)


def test_both_sides_ask_whether_the_other_is_there() -> None:
    server: dict[str, Any] = dict((*app._OPTIONS, *app._keepalive(ServerSettings())))
    asking: dict[str, Any] = dict(channel._OPTIONS)
    for options in (server, asking):
        assert 0 < options["grpc.keepalive_time_ms"] <= 30_000
        assert 0 < options["grpc.keepalive_timeout_ms"] <= 10_000
        assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"]
    assert server["grpc.keepalive_permit_without_calls"] == 1
    # Else the server would end the connection of a client that asks as often as ours.
    assert server["grpc.http2.min_ping_interval_without_data_ms"] < asking["grpc.keepalive_time_ms"]


async def test_the_streams_of_a_client_that_vanished_end(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    settings = {"keepalive_s": 1, "keepalive_timeout_s": 1}
    with capture_logs() as logs:
        async with AsyncExitStack() as clients, serving(nats_server.url, **settings) as address:
            proxy = await clients.enter_async_context(tcp_proxy(address))
            gone = await clients.enter_async_context(raw_stream(proxy.address))
            other = await clients.enter_async_context(raw_stream(address))
            await gone.open("a")
            await other.open("a")
            proxy.swallow()
            await eventually(lambda: proxy.ended)
            new = await writer.commit(Change())
            await other.until(lambda: other["a"].events)
            assert other["a"].sequences == sequences(new)
    (draining,) = [each for each in logs if each["event"] == "draining"]
    assert draining["streams"] == 1, "of the two the one that is there"
