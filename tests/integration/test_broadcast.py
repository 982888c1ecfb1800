"""Broadcasts over real gRPC and a real broker: who gets them, and that nothing of them is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from protos.models.v1.note_pb2 import Note
from realtime.broadcast.audience import Audience
from realtime.errors import Unavailable
from tests.fixtures.broadcasts import broadcast, last_sequence, typing
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import earliest, raw_stream, snapshot
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.snapshot_kit import FILL, SnapshotKit, whole
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

ONE, TWO = new_id(), new_id()


async def test_a_broadcast_through_one_server_reaches_the_listeners_of_both(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit(Change(workspace=ONE))
    async with (
        serving(nats_server.url) as here,
        serving(nats_server.url) as there,
        raw_stream(here) as near,
        raw_stream(there) as far,
    ):
        wanted = pb.Filter(workspace_ids=[ONE])
        await near.open("a", wanted, broadcasts=True)
        await near.open("not asked for", wanted)
        await near.open("elsewhere", pb.Filter(workspace_ids=[TWO]), broadcasts=True)
        await far.open("b", wanted, broadcasts=True)
        note = new_id()
        await broadcast(here, typing(ONE, note))
        for stream, name in ((near, "a"), (far, "b")):
            await stream.until(lambda stream=stream, name=name: stream[name].broadcasts)  # type: ignore[misc]
            (event,) = stream[name].broadcasts
            assert (event.type, event.subject, event.workspace_id) == ("note.typing", note, ONE)
            assert event.id
            assert event.time
            assert stream[name].last.coverage.through == stream[name].last.coverage.after == 1
        stored = await writer.commit(Change(workspace=ONE))
        for name in ("a", "not asked for", "elsewhere"):
            await near.ask_progress(name)
        assert near["a"].sequences == near["not asked for"].sequences == [stored[0].sequence]
        assert not near["not asked for"].broadcasts + near["elsewhere"].broadcasts
        assert await last_sequence(writer) == 2, "nothing of it is stored"


async def test_two_processes_hear_each_other(
    nats_server: NatsServer, writer: StreamWriter, tmp_path: Path
) -> None:
    servers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        servers.append(ServerProcess(tmp_path / name, nats_server.url))
    try:
        for server in servers:
            await server.start()
        one, two = (server.address for server in servers)
        async with raw_stream(one) as near, raw_stream(two) as far:
            for stream in (near, far):
                await stream.open("a", broadcasts=True)
            await broadcast(one, typing(ONE, "from-one"))
            await broadcast(two, typing(ONE, "from-two"))
            for stream in (near, far):
                await stream.until(lambda s=stream: len(s["a"].broadcasts) == 2)  # type: ignore[misc]
                assert {event.subject for event in stream["a"].broadcasts} == {"from-one", "from-two"}
        assert await last_sequence(writer) == 0
    finally:
        for server in servers:
            await server.kill()


async def test_who_receives_a_snapshot_gets_them_too(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    """That the frames join is held by the stream's own account."""
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    await stream.open("a", start=snapshot(20), broadcasts=True)
    for number in range(50):
        payload = Event(id=str(number), type="note.typing").SerializeToString()
        await stream_reader.client.publish(
            fmt.live_subject(ONE, "note", "n"), payload, headers={fmt.VERB: "typing"}
        )
    await whole(stream, "a")
    await stream.until(lambda: len(stream["a"].broadcasts) + stream["a"].dropped == 50)
    assert len(stream["a"].items) > 2000
    assert not stream["a"].events


async def test_filters_and_masks_hold_for_broadcasts(nats_server: NatsServer, writer: StreamWriter) -> None:
    note, user, member = new_id(), new_id(), new_id()
    await writer.commit(Change("membership", ONE, member, user=user))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for name, wanted, mask in (
            ("all", pb.Filter(), ()),
            ("typing", pb.Filter(verbs=["typing"]), ()),
            ("changed", pb.Filter(changed_fields=["title"]), ()),
            ("entity", pb.Filter(entity_ids=[note]), ()),
            ("users", pb.Filter(kinds=["user"]), ()),
            ("of the user", pb.Filter(workspace_ids=[ONE]), ()),
            ("elsewhere", pb.Filter(workspace_ids=[TWO]), ()),
            ("masked", pb.Filter(kinds=["note"]), ("title",)),
        ):
            await stream.open(name, wanted, broadcasts=True, field_mask={"paths": mask})
        first = NewEvent(workspace_id=TWO, kind="note", entity_id=note, verb="drawn")
        first.note.CopyFrom(Note(id=note, title="t", body="b"))
        await broadcast(address, first)
        await broadcast(address, typing(ONE, new_id()))
        await broadcast(address, NewEvent(workspace_id="_", kind="user", entity_id=user, verb="seen"))
        expected = {
            "all": ["drawn", "typing", "seen"],
            "typing": ["typing"],
            "changed": ["drawn", "typing", "seen"],
            "entity": ["drawn"],
            "users": ["seen"],
            "of the user": ["typing", "seen"],
            "elsewhere": ["drawn"],
            "masked": ["drawn", "typing"],
        }
        for name, verbs in expected.items():
            await stream.until(lambda n=name, v=verbs: len(stream[n].broadcasts) >= len(v))  # type: ignore[misc]
            assert [event.type.partition(".")[2] for event in stream[name].broadcasts] == verbs, name
        assert stream["all"].broadcasts[0].note.body == "b"
        assert stream["masked"].broadcasts[0].note == Note(title="t")
        assert stream["masked"].broadcasts[0].data_schema.startswith("zephyr.models.v1.Note/")


async def test_who_is_paused_is_told_how_many_were_dropped(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("paused", broadcasts=True, credit=pb.Credit(messages=0))
        await stream.open("other", broadcasts=True)
        for _ in range(10):
            await broadcast(address, typing(ONE))
        await stream.until(lambda: len(stream["other"].broadcasts) == 10)
        assert not stream["paused"].broadcasts
        grant = pb.CreditGrant(subscription_id="paused", credit=pb.Credit(messages=1))
        await stream.send(pb.SubscribeRequest(credit=grant))
        await stream.until(lambda: stream["paused"].dropped == 10)
        await broadcast(address, typing(ONE))
        await stream.until(lambda: stream["paused"].broadcasts)
        assert stream["paused"].said.count("broadcasts") == 2, "they take no credit"


async def test_a_slow_client_loses_the_oldest_and_learns_how_many(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    """Its connection is full of large ones; what is delivered and what was dropped are all that was sent."""
    sent = 400
    async with (
        serving(nats_server.url) as address,
        raw_stream(address) as slow,
        raw_stream(address) as quick,
    ):
        await slow.open("slow", broadcasts=True)
        await quick.open("quick", broadcasts=True)
        for at in range(sent):
            await broadcast(address, typing(ONE, f"n{at}", 30_000))
            if at % 20 == 19:  # the slow one alone does not read
                await quick.until(lambda at=at: len(quick["quick"].broadcasts) == at + 1)  # type: ignore[misc]
        assert quick["quick"].dropped == 0
        stored = await writer.commit(Change(workspace=ONE))
        account = slow["slow"]
        await slow.until(lambda: len(account.broadcasts) + account.dropped == sent)
        assert account.dropped > 0
        order = [int(event.subject[1:]) for event in account.broadcasts]
        assert order == sorted(set(order))
        assert order[-1] == sent - 1, "the last ones matter most"
        await slow.ask_progress("slow")
        assert account.sequences == [stored[0].sequence]


async def test_who_catches_up_gets_them_too(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change(workspace=ONE) for _ in range(50))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        request = pb.OpenSubscription(subscription_id="a", start=earliest(), broadcasts=True)
        request.credit.messages = 10
        await stream.send(pb.SubscribeRequest(open=request))
        await stream.until(lambda: len(stream["a"].events) == 10)
        grant = pb.CreditGrant(subscription_id="a", credit=pb.Credit(messages=41))
        await stream.send(pb.SubscribeRequest(credit=grant))
        await broadcast(address, typing(ONE))
        await stream.until(lambda: stream["a"].broadcasts and len(stream["a"].events) == 50)
        assert stream["a"].sequences == list(range(1, 51))


async def test_any_reader_of_the_broker_sees_it(nats_server: NatsServer, writer: StreamWriter) -> None:
    """Subject, headers and payload as the document says."""
    seen = await writer.connection.subscribe("zephyr-live.>")
    await writer.connection.flush()
    async with serving(nats_server.url) as address:
        await broadcast(address, typing(ONE.upper(), "n"))
        message = await seen.next_msg(10)
    event = Event.FromString(message.data)
    assert message.subject == f"zephyr-live.0.{ONE}.note.n"
    # Beside them are those of a CloudEvent: test_cloud_events.py.
    own = {name: value for name, value in (message.headers or {}).items() if not name.startswith("ce-")}
    assert own == {"Zephyr-Id": event.id, "Zephyr-Verb": "typing"}
    assert (event.type, event.workspace_id, event.subject) == ("note.typing", ONE, "n")
    assert event.source == "/publisher/_"
    assert not event.HasField("commit")


async def test_a_server_without_listeners_and_one_that_drains(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    audiences: list[Audience] = []

    def audience(*args: Any) -> Audience:
        audiences.append(Audience(*args))
        return audiences[-1]

    monkeypatch.setattr("realtime.app.Audience", audience)
    async with serving(nats_server.url) as address:
        await broadcast(address, typing(ONE))
        async with raw_stream(address) as stream:
            await stream.open("a", broadcasts=True)
            await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id="a")))
            await stream.closed("a")
            await broadcast(address, typing(ONE))
            await stream.open("b", broadcasts=True)
            await broadcast(address, typing(ONE))
            await stream.until(lambda: len(stream["b"].broadcasts) == 1)
            assert [len(each) for each in audiences] == [1]
        # The stream is gone; the server has nobody to give it to, and says so to nobody.
        await eventually(lambda: not len(audiences[0]))
        await broadcast(address, typing(ONE))
    async with grpc.aio.insecure_channel(address):
        with pytest.raises(Unavailable):
            await broadcast(address, typing(ONE))
