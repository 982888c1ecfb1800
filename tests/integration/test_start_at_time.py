"""Subscriptions that begin at a time: with the first event stored since, or told why not."""

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
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from zephyr.stack.nats import NatsServer

SMALL: dict[str, Any] = {"ring_entries": 64}
HOUR_US = 3600 * 1_000_000


def at_time(time_us: int) -> pb.Start:
    return pb.Start(at_time=pb.AtTimeStart(time=time_us))


async def times_us(stream: RawStream, name: str = "all") -> list[int]:
    """When each event was stored, rounded down to microseconds."""
    await stream.open(name, start=earliest())
    await stream.caught_up(name)
    return [Cursor.decode(event.cursor).timestamp_ns // 1000 for event in stream[name].events]


async def is_expired(stream: RawStream, name: str, time_us: int) -> bytes:
    """Opens at a time that is gone; gives the earliest cursor that is left."""
    await stream.open(name, start=at_time(time_us), wait=False)
    frames = [await stream.read(), await stream.read()]
    assert [frame.WhichOneof("response") for frame in frames] == ["reset", "closed"]
    assert frames[0].reset.reason == pb.RESET_REASON_EXPIRED
    error = from_error(frames[1].closed.error)
    assert isinstance(error, CursorReset)
    assert error.reason == "EXPIRED"
    return frames[0].reset.earliest_cursor


async def test_begins_with_the_first_event_stored_since(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    for _ in range(20):
        await writer.commit(*(Change() for _ in range(10)))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        stored = await times_us(stream)
        asked = {
            "before all": stored[0] - HOUR_US,
            "the epoch of Unix": 0,
            "before that": -HOUR_US,
            "the first": stored[0],
            "middle": stored[110],
            "just after": stored[110] + 1,
            "last": stored[-1],
            "now": stored[-1] + 1,
            "in an hour": stored[-1] + HOUR_US,
            "the end of time": 2**63 - 1,
        }
        for name, time_us in asked.items():
            await stream.open(name, start=at_time(time_us))
        new = await writer.commit(Change())
        for name, time_us in asked.items():
            await stream.until(lambda name=name: stream[name].through == new[0].sequence)  # type: ignore[misc]
            old = [each.sequence for each, at in zip(writer.stored, stored, strict=False) if at >= time_us]
            assert stream[name].sequences == old + sequences(new), name


async def test_what_retention_may_have_taken_is_told(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.delete()

    async def is_made() -> bool:  # the broker may still be busy with removing the former one's files
        await writer.create(max_msgs=100)
        return True

    await eventually(is_made)
    await writer.commit_each(Change() for _ in range(90))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        (first, *_) = await times_us(stream)
        await stream.open("whole", start=at_time(first - HOUR_US))
        await writer.commit_each(Change() for _ in range(60))
        await stream.until(lambda: stream["all"].through == 150)
        left = (await times_us(stream, "left"))[0]
        assert stream["left"].sequences == list(range(51, 151))
        for at, time_us in enumerate((first - HOUR_US, first, left)):
            earliest_cursor = await is_expired(stream, f"gone {at}", time_us)
            await stream.open(f"rest {at}", start=after(earliest_cursor))
            await stream.caught_up(f"rest {at}")
            assert stream[f"rest {at}"].sequences == list(range(51, 151))
        await stream.open("held", start=at_time(left + 1))
        await stream.caught_up("held")
        assert stream["held"].sequences[-1] == 150
        assert 51 < stream["held"].sequences[0] < 60


@pytest.mark.parametrize("is_emptied", [True, False])
async def test_an_empty_stream(nats_server: NatsServer, writer: StreamWriter, is_emptied: bool) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        last = 0
        if is_emptied:
            await writer.commit_each(Change() for _ in range(5))
            last = (await times_us(stream))[-1]
            await writer.api("STREAM.PURGE.ZEPHYR")
            await is_expired(stream, "gone", last - HOUR_US)
            await is_expired(stream, "the last", last)
        await stream.open("since", start=at_time(last + 1))
        new = await writer.commit(Change())
        await stream.until(lambda: stream["since"].events)
        assert stream["since"].sequences == sequences(new)
