"""Domain events and producers' marks as ``docs/stream-format.md`` says they are, of two sessions."""

from __future__ import annotations

import time
from pathlib import Path

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.mark_pb2 import ProducerMark
from realtime.entry import make_entry
from tests.fixtures.publish_kit import produced, publish_client
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_writer import StreamWriter
from zephyr.stack.nats import NatsServer

SUBJECT = "zephyr._mark.0.producer.p-1"


async def test_events_and_marks(nats_server: NatsServer, writer: StreamWriter, stream_reader: Reader) -> None:
    async with serving(nats_server.url) as address, publish_client(address) as client:
        for begin in (1, 5001):
            stream = client.stream()
            await stream.open("p-1")
            for at in range(begin, begin + 3000, 300):
                await stream.put(produced(2 * number) for number in range(at, at + 300))
            await stream.settle(3000)
    before: tuple[int, ProducerMark] = (0, ProducerMark())
    since: list[tuple[int, int]] = []
    run: list[tuple[int, int]] = []
    marks: list[tuple[int, ProducerMark]] = []
    for message in await stream_reader.all():
        if message.subject != SUBJECT:
            place = fmt.parse_subject(message.subject)
            assert place is not None
            assert (place.suffix, place.kind) == ("event", "note")
            event = Event.FromString(message.payload)
            assert message.headers[fmt.ID] == event.id
            assert message.headers[fmt.VERB] == "shared" == event.type.partition(".")[2]
            assert event.source == "/publisher/p-1"
            assert not event.HasField("commit")
            run.append((int(event.id.rpartition(".")[2]), message.sequence))
            continue
        mark = ProducerMark.FromString(message.payload)
        assert message.headers[fmt.FENCE_SEQUENCE] == str(before[0])
        assert mark.epoch == writer.epoch
        assert abs(mark.written_at - time.time_ns() // 1000) < 60_000_000
        # Its events stand right before it, in their order.
        assert list(mark.sequences) == [sequence for sequence, _ in run]
        assert [at for _, at in run] == list(range(message.sequence - len(run), message.sequence))
        assert len(run) <= 999
        is_beginning = not run
        assert mark.session == before[1].session + is_beginning
        assert mark.reached == (before[1].reached if is_beginning else run[-1][0])
        since += run
        # From the mark that it names on, the marks hold the last 1000 results.
        marks.append((message.sequence, mark))
        named = mark.results_since or message.sequence
        held = [each for at, one in marks if at >= named for each in one.sequences]
        assert held[-1000:] == [sequence for sequence, _ in since][-1000:]
        before, run = (message.sequence, mark), []
    assert not run
    assert (before[1].session, before[1].reached) == (2, 16000)
    assert [sequence for sequence, _ in since] == [
        2 * number for begin in (1, 5001) for number in range(begin, begin + 3000)
    ]


def test_a_producers_name_is_no_mark_of_the_bridge() -> None:
    """A producer may be called as a mark is."""
    for name in ("position", "owner", "snapshot"):
        entry = make_entry("aa" * 10, fmt.producer_subject(name), {}, b"", 1, 1)
        assert (entry.is_internal, entry.verb) == (True, "producer")
    for subject in ("zephyr._mark.0.position.x", "zephyr._mark.0.producer.a.b"):
        assert make_entry("aa" * 10, subject, {}, b"", 1, 1).verb == "foreign"


def test_the_prose_names_them() -> None:
    text = (Path(__file__).parents[2] / "docs" / "stream-format.md").read_text("utf-8")
    assert "zephyr._mark.<shard>.producer.<producer id>" in text
    assert "`zephyr._mark.0.producer.<id>`" in text
