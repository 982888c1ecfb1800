"""Ready means ready: it is said on a source that was seen alive, whatever the connection looks like."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

import realtime.subscription
from realtime.cursor import Cursor
from realtime.errors import Unavailable
from realtime.status import from_error
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from zephyr.stack.nats import NatsServer
from zephyr.verify.proxy import Mode, Proxy


@pytest.mark.parametrize("mode", [Mode.BLACKHOLE, Mode.DROP_ANSWERS])
async def test_no_ready_over_a_connection_that_swallows_what_is_sent(
    nats_server: NatsServer, writer: StreamWriter, mode: Mode
) -> None:
    await writer.commit(Change())
    async with (
        Proxy(lambda: nats_server.address) as proxy,
        serving(proxy.url) as address,
        raw_stream(address) as stream,
    ):
        await stream.open("before")
        await stream.caught_up("before")
        proxy.set(mode)
        await stream.open("a", wait=False)
        # The server is there and does not know yet: what it hears of the stream is silence.
        await stream.ask_progress("before")
        unseen = await writer.commit(Change(), Change())
        proxy.set(Mode.PASS)
        await stream.until(lambda: "ready" in stream["a"].said, 30)
        # It was proven by what stood in the stream when the connection was seen to live.
        assert Cursor.decode(stream["a"].cursor).sequence >= unseen[-1].sequence
        await stream.until(lambda: stream["before"].events, 30)
        assert stream["before"].sequences == sequences(unseen)
        new = await writer.commit(Change())
        for name in ("a", "before"):
            await stream.until(lambda name=name: stream[name].through == new[0].sequence)  # type: ignore[misc]
        assert stream["a"].sequences == sequences(new)


async def test_no_ready_while_nats_stands_still(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in the product, longer than a broker that is only slow takes.
    monkeypatch.setattr(realtime.subscription, "_SOURCE_WAIT_S", 2.0)

    await writer.commit(Change())
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("before")
        await stream.caught_up("before")
        assert nats_server.pid is not None
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            for at in range(20):
                await stream.open(f"s{at}", wait=False)
            for at in range(20):
                error = from_error((await stream.closed(f"s{at}")).error)
                assert isinstance(error, Unavailable)
                assert stream[f"s{at}"].said == ["closed"]

            nonces = map(str, itertools.count())

            async def is_stalled() -> bool:
                await stream.ask_progress("before", next(nonces))
                return stream["before"].last.progress.source.stalled

            await eventually(is_stalled, what="progress says that the source is stalled")
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        await eventually(lambda: writer.connection.is_connected)
        new = await writer.commit(Change())
        await stream.open("after")
        assert Cursor.decode(stream["after"].cursor).sequence >= new[0].sequence
        await stream.until(lambda: stream["before"].events)
        assert stream["before"].sequences == sequences(new)


async def test_the_end_of_the_stream_was_removed(nats_server: NatsServer, writer: StreamWriter) -> None:
    old = await writer.commit_each(Change() for _ in range(3))
    await writer.remove(3)
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("all", start=earliest())
        await stream.until(lambda: len(stream["all"].events) == 2)
        new = await writer.commit_each(Change() for _ in range(2))
        await stream.until(lambda: stream["all"].through == 5)
        await writer.commit(Change())
        await writer.remove(6)
        await stream.open("again", start=earliest())
        await stream.until(lambda: len(stream["again"].events) >= 4)
        assert stream["again"].sequences[:4] == sequences(old[:2] + new)


async def test_many_who_open_at_once_share_the_proof(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit(Change())
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("before")
        await stream.caught_up("before")
        asked = await requests(writer)
        assert nats_server.pid is not None
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            for at in range(99):
                await stream.open(f"s{at}", wait=False)
            await stream.ask_progress("before")  # the server took all that was sent before it
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        for at in range(99):
            await stream.until(lambda at=at: "ready" in stream[f"s{at}"].said)  # type: ignore[misc]
        assert await requests(writer) - asked < 20


async def requests(writer: StreamWriter) -> int:
    """How many requests of its API the broker has had."""
    answer = await writer.api("INFO")
    return int(answer["api"]["total"])
