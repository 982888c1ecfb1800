"""Streams that last: they are told that the server is alive, also when nothing is subscribed, and when it goes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from realtime import app
from realtime.client import channel
from realtime.services import stream_service
from realtime.services.stream import StreamLimits
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
        async with (
            serving(nats_server.url, **settings) as address,
            tcp_proxy(address) as proxy,
            raw_stream(proxy.address) as gone,
            raw_stream(address) as other,
        ):
            await gone.open("a")
            await other.open("a")
            proxy.swallow()
            await eventually(lambda: proxy.ended)
            new = await writer.commit(Change())
            await other.until(lambda: other["a"].events)
            assert other["a"].sequences == sequences(new)
    (draining,) = [each for each in logs if each["event"] == "draining"]
    assert draining["streams"] == 1, "of the two the one that is there"
