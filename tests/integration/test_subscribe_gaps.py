"""Messages that were removed from the stream one by one are told, in turn with the events around them."""

from __future__ import annotations

import signal

from protos.events.v1 import stream_pb2 as pb
from tests.fixtures.raw_stream import RawStream, after, earliest, raw_stream
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

Told = list[int | tuple[int, int]]


async def told(stream: RawStream, name: str, through: int) -> Told:
    """Sequences of events, and pairs for gaps, in the order in which they were told."""
    result: Told = []
    while True:
        frame = await stream.read()
        if frame.subscription_id != name:
            continue
        result += [event.sequence for event in frame.events.events]
        if frame.HasField("gap"):
            result.append((frame.gap.after, frame.gap.through))
        if frame.coverage.through >= through and not frame.HasField("ready"):
            return result


async def test_gaps_of_the_past_and_of_now(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(300))
    for sequence in (2, 3, 50, 299):
        await writer.remove(sequence)
    async with serving(nats_server.url, ring_entries=64) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest(), wait=False)
        past: Told = [1, (1, 3), *range(4, 50), (49, 50), *range(51, 299), (298, 299), 300]
        assert await told(stream, "a", 300) == past
        cursor = stream["a"].events[1].cursor
        await stream.caught_up("a")
        for _ in range(2):
            await writer.commit(Change())
        assert await told(stream, "a", 302) == [301, 302]
        await stream.open("b", start=after(cursor), wait=False)
        assert await told(stream, "b", 302) == [*past[3:], 301, 302]


async def test_a_gap_that_the_live_edge_meets_reaches_every_subscription(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    async with raw_stream(server_process.address) as stream:
        await stream.open("all")
        await stream.open("none", pb.Filter(workspace_ids=[new_id()]))
        for name in ("all", "none"):
            await stream.caught_up(name)
        # The consumer delivers nothing while the server stands still; what it would have is removed meanwhile.
        (consumer,) = await writer.consumers()
        server_process.send(signal.SIGSTOP)
        await writer.api(f"CONSUMER.DELETE.ZEPHYR.{consumer}")
        await writer.commit_each(Change() for _ in range(6))
        for sequence in (2, 3, 5):
            await writer.remove(sequence)
        server_process.send(signal.SIGCONT)
        await stream.until(lambda: all(stream[name].through == 6 for name in ("all", "none")), 30)
        assert stream["all"].sequences == [1, 4, 6]
        for name in ("all", "none"):
            assert stream[name].said.count("gap") == 2
            assert "fell_behind" not in stream[name].said
        said = [kind for kind in stream["all"].said if kind in ("events", "gap")]
        assert said == ["events", "gap", "events", "gap", "events"]
