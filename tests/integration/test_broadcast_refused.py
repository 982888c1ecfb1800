"""What cannot be broadcast, what is no broadcast, and a broker that goes."""

from __future__ import annotations

import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from protos.models.v1.note_pb2 import Note
from realtime.errors import ArgumentInvalid, LimitExceeded, RealtimeError, Unavailable
from tests.fixtures.broadcasts import broadcast, last_sequence, typing
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import StreamWriter, new_id
from zephyr.stack.nats import NatsServer

ONE = new_id()


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (NewEvent(workspace_id="x", kind="note", entity_id="a", verb="typing"), "event.workspace_id"),
        (NewEvent(kind="note", entity_id="a", verb="typing"), "event.workspace_id"),
        (NewEvent(workspace_id=ONE, kind="cat", entity_id="a", verb="typing"), "event.kind"),
        (NewEvent(workspace_id=ONE, kind="note", entity_id="a.b", verb="typing"), "event.entity_id"),
        (NewEvent(workspace_id=ONE, kind="note", entity_id="a", verb="updated"), "event.verb"),
        (NewEvent(workspace_id=ONE, kind="note", entity_id="a", verb="Typing"), "event.verb"),
        (NewEvent(workspace_id=ONE, kind="note", entity_id="a", verb="typing", time=2**60), "event.time"),
        (NewEvent(workspace_id=ONE, kind="user", entity_id="a", verb="t", note=Note()), "event.note"),
    ],
)
async def test_what_cannot_be_broadcast_is_refused_with_its_field(
    nats_server: NatsServer, writer: StreamWriter, event: NewEvent, field: str
) -> None:
    async with serving(nats_server.url) as address:
        with pytest.raises(ArgumentInvalid) as caught:
            await broadcast(address, event)
        assert [name for name, _ in caught.value.violations] == [field]
        await broadcast(address, typing(ONE))


async def test_what_is_too_large_and_what_is_no_request(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url, broadcast_bytes=1000) as address:
        await broadcast(address, typing(ONE, size=500))
        with pytest.raises(LimitExceeded, match="at most 1000 are possible") as caught:
            await broadcast(address, typing(ONE, size=1000))
        assert caught.value.code == codes.ERROR_CODE_RESOURCE_EXHAUSTED
        with pytest.raises(ArgumentInvalid, match="no BroadcastRequest"):
            await broadcast(address, b"\xff")


async def test_garbage_on_the_subject_passes_without_harm(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url, broadcast_bytes=1000) as address, raw_stream(address) as stream:
        await stream.open("a", broadcasts=True)
        good = Event(type="note.typing", subject="x", workspace_id=ONE).SerializeToString()
        place = fmt.live_subject(ONE, "note", "x")
        verb = {fmt.VERB: "typing"}
        for subject, payload, headers in (
            (place, good, None),
            (place, good, {fmt.VERB: "truncated"}),
            (place, b"\xff\xff", verb),
            (place, Event(id="x" * 1000).SerializeToString(), verb),
            ("zephyr-live.0.a.b.c", b"", verb),
            (f"zephyr-live.0.{ONE}.note.\N{GREEK SMALL LETTER ALPHA}", good, verb),
            ("zephyr-live.0.a", good, verb),
            (place, good, verb),
        ):
            await writer.connection.publish(subject, payload, headers=headers)
        await stream.until(lambda: any(e.subject == "x" for e in stream["a"].broadcasts))
        # An empty payload is an event without anything in it.
        assert [event.subject for event in stream["a"].broadcasts] == ["", "x"]
        assert await last_sequence(writer) == 0


async def test_the_broker_goes_and_comes_again(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a", broadcasts=True)
        await nats_server.stop()
        before = typing(ONE, "lost")

        async def is_refused() -> bool:
            try:
                await broadcast(address, before)
            except Unavailable as error:
                return "takes no broadcasts now" in error.message
            return False

        await eventually(is_refused)
        await nats_server.start()

        async def is_taken() -> bool:
            try:
                await broadcast(address, typing(ONE, "after"))
            except RealtimeError:
                return False
            return True

        await eventually(is_taken, timeout=20)
        await stream.until(lambda: any(e.subject == "after" for e in stream["a"].broadcasts))
        assert "closed" not in stream["a"].said
