"""Subscriptions while the broker, the stream and the server's own reader fail."""

from __future__ import annotations

from typing import Any

import pytest

from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from realtime.errors import CursorReset
from realtime.status import from_error
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import RawStream, after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

SMALL: dict[str, Any] = {"ring_entries": 64}


def written(writer: StreamWriter) -> list[int]:
    return [item.sequence for item in writer.stored if item.change is not None]


async def has_all(stream: RawStream, name: str, writer: StreamWriter) -> None:
    """Reads until the subscription is where the stream is; each event must have come once."""
    await stream.until(lambda: stream[name].through == writer.stored[-1].sequence, 30)
    assert stream[name].sequences == written(writer)
    assert sum(stream[name].counts) == writer.stored[-1].sequence


@pytest.mark.parametrize("graceful", [True, False])
async def test_nats_goes_away_and_comes_back(
    nats_server: NatsServer, writer: StreamWriter, graceful: bool
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await writer.commit(Change(), Change())
        await has_all(stream, "a", writer)
        await (nats_server.stop() if graceful else nats_server.kill())
        await nats_server.restart()
        await eventually(lambda: writer.connection.is_connected)
        await writer.commit(Change(), Change())
        await has_all(stream, "a", writer)
        await stream.open("b", start=earliest())
        await has_all(stream, "b", writer)


async def test_nats_goes_away_while_catching_up(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(6000))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.until(lambda: len(stream["a"].events) > 500)
        await nats_server.kill()
        await nats_server.restart()
        await eventually(lambda: writer.connection.is_connected)
        await writer.commit(Change())
        await has_all(stream, "a", writer)


async def test_the_consumer_is_deleted_under_the_server(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await writer.commit(Change())
        await has_all(stream, "a", writer)
        (consumer,) = await writer.consumers()
        await writer.api(f"CONSUMER.DELETE.ZEPHYR.{consumer}")
        await writer.commit(Change(), Change())
        await has_all(stream, "a", writer)
        assert "fell_behind" not in stream["a"].said


async def test_another_epoch_ends_every_subscription_with_the_reason(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit_each(Change() for _ in range(50))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("live")
        await stream.open("none", pb.Filter(workspace_ids=[new_id()]))
        await stream.caught_up("none")
        cursor = stream["live"].cursor
        await writer.delete()
        await writer.create()
        await writer.commit(Change(), Change())
        for name in ("live", "none"):
            error = from_error((await stream.closed(name)).error)
            assert isinstance(error, CursorReset)
            assert error.reason == "EPOCH_CHANGED"
            assert stream[name].said[-2:] == ["reset", "closed"]
            assert stream[name].events == []
            assert Cursor.decode(stream[name].cursor).epoch == Cursor.decode(cursor).epoch
        await stream.open("again", start=earliest())
        await has_all(stream, "again", writer)
        await stream.open("old", start=after(cursor), wait=False)
        assert from_error((await stream.closed("old")).error).reason == "EPOCH_CHANGED"


async def test_what_a_reset_gives_can_be_gone_on_from(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.delete()
    await writer.create(max_msgs=100)
    await writer.commit(Change())
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        cursor = stream["a"].cursor
        await writer.commit_each(Change() for _ in range(300))
        await stream.open("b", start=after(cursor), wait=False)
        frames: list[pb.SubscribeResponse] = []
        while not frames or frames[-1].WhichOneof("response") != "closed":
            frame = await stream.read()
            if frame.subscription_id == "b":
                frames.append(frame)
        assert [frame.WhichOneof("response") for frame in frames] == ["reset", "closed"]
        reset = frames[0].reset
        assert reset.reason == pb.RESET_REASON_EXPIRED
        await stream.open("c", start=after(reset.earliest_cursor))
        await stream.until(lambda: stream["c"].through == 301)
        assert stream["c"].sequences == list(range(202, 302))


async def test_retention_that_passes_a_slow_reader_resets_it(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.delete()

    async def is_made() -> bool:  # the broker may still be busy with removing the former one's files
        await writer.create(max_msgs=500)
        return True

    await eventually(is_made)
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as slow:
        await slow.open("s")
        await slow.caught_up("s")
        async with raw_stream(address) as quick:
            await quick.open("q")
            for _ in range(40):
                await writer.commit(*(Change(size=2000) for _ in range(200)))
                last = writer.stored[-1].sequence
                await quick.until(lambda last=last: quick["q"].through == last)  # type: ignore[misc]
        error = from_error((await slow.closed("s")).error)
        assert error.reason == "EXPIRED"
        assert slow["s"].said[-2:] == ["reset", "closed"]
        assert "fell_behind" in slow["s"].said
        assert slow["s"].sequences == list(range(1, len(slow["s"].events) + 1))


async def test_a_history_that_was_rewritten_is_noticed(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(10))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        seen = Cursor.decode(stream["a"].events[4].cursor)
        for cursor in (
            Cursor(seen.epoch, seen.sequence, seen.timestamp_ns + 1),
            Cursor(seen.epoch, 11, seen.timestamp_ns),
        ):
            await stream.open("b", start=after(cursor.encode()), wait=False)
            error = from_error((await stream.closed("b")).error)
            assert isinstance(error, CursorReset)
            assert error.reason == "HISTORY_REWRITTEN"
