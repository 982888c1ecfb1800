"""CloudEvents by plain NATS clients: what one asks to be stored, and what another reads."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
from cloudevents.core.v1.event import CloudEvent
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from nats.aio.client import Client as NatsClient

from bridge.settings import BridgeSettings
from protos import cloudevents as ce
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from realtime.auth import Caller, Scope
from realtime.services import cloud_events
from tests.fixtures.bridge import running
from tests.fixtures.broadcasts import broadcast
from tests.fixtures.eventually import eventually
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.publish_kit import W, new_event, publish_client
from tests.fixtures.raw_stream import after, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_writer import STREAM, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Plain:
    """A client that knows NATS and CloudEvents, and nothing of Zephyr's code."""

    def __init__(self, connection: NatsClient) -> None:
        self.connection = connection

    async def ask(self, to: str = "", data: bytes = b"", **attributes: str | None) -> dict[str, Any]:
        """Asks for an event; an attribute that is None is left out."""
        message = await self.connection.request(
            to or f"zephyr-publish.0.{W}.note.n", data, timeout=15, headers=headers_of(**attributes)
        )
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def read(self, sequence: int) -> tuple[str, CloudEvent]:
        """A stored message as a CloudEvent, by the binding's rules and the official package."""
        stored = await self.connection.jetstream().get_msg(STREAM, sequence)
        return stored.subject or "", cloud_event(dict(stored.headers or {}), stored.data or b"")


def headers_of(**attributes: str | None) -> dict[str, str]:
    given = {
        "specversion": "1.0",
        "id": new_id(),
        "source": "/shop/till-4",
        "type": "note.shared",
        **attributes,
    }
    return {f"ce-{name}": value for name, value in given.items() if value is not None}


def cloud_event(headers: dict[str, str], data: bytes) -> CloudEvent:
    attributes: dict[str, Any] = {
        name[3:]: ce.decode(value) for name, value in headers.items() if name.startswith("ce-")
    }
    attributes["time"] = datetime.fromisoformat(attributes["time"])
    # It raises when an attribute is missing, or cannot be.
    return CloudEvent(attributes, data)


@pytest.fixture
async def plain(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[Plain]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(nats_server.url))
        connection = await nats.connect(nats_server.url)
        stack.push_async_callback(connection.close)
        yield Plain(connection)


async def test_an_event_in_json_is_stored_and_read_again(plain: Plain) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    answer = await plain.ask(
        data=json.dumps({"id": "n", "title": "Grüße", "workspaceId": W}).encode(),
        id="a-1",
        time=at.isoformat().replace("+00:00", "Z"),
        datacontenttype="application/json; charset=utf-8",
        subject="n",
        workspaceid=W,
        actor="J%C3%BCrgen%20%25",
        correlationid="c 1",
        traceparent=TRACE,
        dataschema="https://type.googleapis.com/zephyr.models.v1.Note",
        priority="7",
    )
    assert answer.keys() == {"cursor", "sequence", "version", "event_id", "repeated"}
    assert (answer["event_id"], answer["repeated"], answer["version"]) == ("a-1", False, answer["sequence"])
    subject, event = await plain.read(answer["sequence"])
    assert subject == f"zephyr.0.{W}.note.n.event"
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "a-1",
        "source": "/shop/till-4",
        "type": "note.shared",
        "subject": "n",
        "time": at,
        "datacontenttype": "application/protobuf",
        "dataschema": ce.ENVELOPE,
        "workspaceid": W,
        "actor": "Jürgen %",
        "correlationid": "c 1",
        "traceparent": TRACE,
        "priority": "7",
    }
    envelope = Event.FromString(event.get_data())  # type: ignore[arg-type]
    assert envelope.note == Note(id="n", title="Grüße", workspace_id=W)
    assert (envelope.id, envelope.type, envelope.source) == ("a-1", "note.shared", "/shop/till-4")
    assert (envelope.actor, envelope.correlation_id, envelope.traceparent) == ("Jürgen %", "c 1", TRACE)
    assert timedelta(microseconds=envelope.time) == at - datetime(1970, 1, 1, tzinfo=UTC)
    assert envelope.data_schema.startswith("zephyr.models.v1.Note/")


async def test_its_cursor_goes_on_right_behind_it(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        connection = await nats.connect(nats_server.url)
        try:
            first = await Plain(connection).ask()
            second = await Plain(connection).ask()
        finally:
            await connection.close()
        await stream.open("a", start=after(base64.b64decode(first["cursor"])))
        await stream.until(lambda: stream["a"].events)
        assert stream["a"].sequences == [second["sequence"]]
        assert stream["a"].events[0].cursor == base64.b64decode(second["cursor"])


async def test_an_event_in_protobuf(plain: Plain) -> None:
    note = Note(id="n", title="t")
    for schema in (None, "zephyr.models.v1.Note", "https://type.googleapis.com/zephyr.models.v1.Note/3f2a"):
        answer = await plain.ask(
            data=note.SerializeToString(), datacontenttype="application/protobuf", dataschema=schema
        )
        _, event = await plain.read(answer["sequence"])
        assert Event.FromString(event.get_data()).note == note  # type: ignore[arg-type]
    answer = await plain.ask()
    _, event = await plain.read(answer["sequence"])
    assert Event.FromString(event.get_data()).WhichOneof("data") is None  # type: ignore[arg-type]


async def test_what_is_the_same_by_source_and_id_is_stored_once(plain: Plain) -> None:
    first = await plain.ask(id="same")
    again = await plain.ask(id="same")
    other = await plain.ask(id="same", source="/shop/till-5")
    assert again == first | {"repeated": True}
    assert (other["repeated"], other["sequence"]) == (False, first["sequence"] + 1)


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        ({"specversion": "0.3"}, "ARGUMENT_INVALID", "ce-specversion"),
        ({"specversion": None}, "ARGUMENT_INVALID", "ce-specversion"),
        ({"id": None}, "ARGUMENT_INVALID", "ce-id"),
        ({"id": "x" * 65}, "ARGUMENT_INVALID", "request_id"),
        ({"source": None}, "ARGUMENT_INVALID", "ce-source"),
        ({"source": "/postgres/7/db/public.notes"}, "ARGUMENT_INVALID", "ce-source"),
        ({"source": "/publisher/orders"}, "ARGUMENT_INVALID", "ce-source"),
        ({"source": "with%20space"}, "ARGUMENT_INVALID", "ce-source"),
        ({"type": "user.shared"}, "ARGUMENT_INVALID", "ce-type"),
        ({"type": "note"}, "ARGUMENT_INVALID", "ce-type"),
        ({"type": "note.Bad Verb"}, "ARGUMENT_INVALID", "event.verb"),
        ({"type": "note.updated"}, "ROW_VERB", "event.verb"),
        ({"subject": "m"}, "ARGUMENT_INVALID", "ce-subject"),
        ({"workspaceid": "_"}, "ARGUMENT_INVALID", "ce-workspaceid"),
        ({"time": "yesterday"}, "ARGUMENT_INVALID", "ce-time"),
        ({"time": "2026-01-01T00:00:00"}, "ARGUMENT_INVALID", "ce-time"),
        ({"time": "2999-01-01T00:00:00Z"}, "TIME_IN_FUTURE", "event.time"),
        ({"actor": "%C0%A0"}, "ARGUMENT_INVALID", "ce-actor"),
        ({"actor": "a%0Ab"}, "ARGUMENT_INVALID", "event.actor"),
        ({"traceparent": "none"}, "ARGUMENT_INVALID", "event.metadata.traceparent"),
        ({"datacontenttype": "text/plain"}, "ARGUMENT_INVALID", "ce-datacontenttype"),
        ({"data": b"{"}, "ARGUMENT_INVALID", "data"),
        ({"data": b'{"nosuch": 1}'}, "ARGUMENT_INVALID", "data"),
        ({"data": b"\xff"}, "ARGUMENT_INVALID", "data"),
        ({"data": b"[" * 5000}, "ARGUMENT_INVALID", "data"),
        ({"data": b" " * 300_000}, "ARGUMENT_INVALID", "data"),
        ({"data": b"{}", "dataschema": "zephyr.models.v1.User"}, "ARGUMENT_INVALID", "ce-dataschema"),
        ({"data": b'{"@type": "x/acme.v1.Order"}'}, "ARGUMENT_INVALID", "data"),
        ({"data": b"\xff", "datacontenttype": "application/protobuf"}, "ARGUMENT_INVALID", "data"),
        (
            {"datacontenttype": "application/protobuf", "dataschema": "acme.v1.Order"},
            "ARGUMENT_INVALID",
            "event.other",
        ),
        ({"dataschema": "nothing"}, "ARGUMENT_INVALID", "ce-dataschema"),
        ({"Bad-Name": "x"}, "ARGUMENT_INVALID", "ce-bad-name"),
        ({"commit": "1/0/1"}, "ARGUMENT_INVALID", "ce-commit"),
        ({"kept": "x" * 3000}, "ARGUMENT_INVALID", "ce-"),
        ({"to": f"zephyr-publish.0.{W}.nokind.n", "type": "nokind.x"}, "UNKNOWN_KIND", "event.kind"),
        ({"to": "zephyr-publish.0.nowhere.note.n"}, "ARGUMENT_INVALID", "event.workspace_id"),
    ],
)
async def test_what_cannot_be_is_told(plain: Plain, given: dict[str, Any], reason: str, field: str) -> None:
    answer = await plain.ask(**given)
    error = answer["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", reason), error
    assert [each["field"] for each in error["violations"]] == [field], error
    assert "\n" not in error["message"]


async def test_all_that_is_wrong_is_told(plain: Plain) -> None:
    error = (await plain.ask(id=None, source=None, type="x.y", time="?", datacontenttype="x"))["error"]
    fields = {each["field"] for each in error["violations"]}
    assert fields == {"ce-id", "ce-source", "ce-type", "ce-time", "ce-datacontenttype"}


async def test_structured_mode_is_refused_with_the_mend(plain: Plain) -> None:
    answer = await plain.connection.request(
        f"zephyr-publish.0.{W}.note.n",
        b"{}",
        timeout=10,
        headers={"Content-Type": "application/cloudevents+json"},
    )
    violations = json.loads(answer.data)["error"]["violations"]
    assert any(each["field"] == "content-type" and "binary" in each["description"] for each in violations)


async def test_without_a_reply_subject_it_is_stored_all_the_same(plain: Plain, writer: StreamWriter) -> None:
    before = (await plain.ask())["sequence"]
    subject = f"zephyr-publish.0.{W}.note.n"
    await plain.connection.publish(subject, b"", headers=headers_of(type="note.created"))
    await plain.connection.publish(subject, b"", headers=headers_of(id="silent"))
    # What a consumer delivers there was stored before, and is not asked for.
    await plain.connection.publish(subject, b"", reply="$JS.ACK.x", headers=headers_of(id="delivered"))

    async def is_stored() -> bool:
        return bool((await writer.api(f"STREAM.INFO.{STREAM}"))["state"]["last_seq"] > before)

    await eventually(is_stored)
    _, event = await plain.read(before + 1)
    assert event.get_id() == "silent"
    assert (await plain.ask(id="last"))["sequence"] == before + 2


async def test_more_than_a_server_takes_is_told_at_once(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_events, "MOST_REQUESTS", 8)
    async with serving(nats_server.url):
        connection = await nats.connect(nats_server.url)
        try:
            plain = Plain(connection)
            answers = await asyncio.gather(*(plain.ask() for _ in range(200)))
        finally:
            await connection.close()
    stored = [answer["sequence"] for answer in answers if "error" not in answer]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert len(stored) >= 8
    assert refused
    assert {(error["code"], error["reason"]) for error in refused} == {
        ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
    }
    assert len(set(stored)) == len(stored)
    assert (await writer.api(f"STREAM.INFO.{STREAM}"))["state"]["last_seq"] == max(stored)


async def test_servers_share_the_work_and_each_event_is_stored_once(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url), serving(nats_server.url):
        connection = await nats.connect(nats_server.url)
        try:
            plain = Plain(connection)
            answers = await asyncio.gather(*(plain.ask(id=f"e{number}") for number in range(100)))
            assert len({answer["sequence"] for answer in answers}) == 100
            again = await asyncio.gather(*(plain.ask(id=f"e{number}") for number in range(100)))
        finally:
            await connection.close()
    assert again == [answer | {"repeated": True} for answer in answers]


async def test_a_policy_is_asked(nats_server: NatsServer, writer: StreamWriter) -> None:
    class Rule(RuledPolicy):
        async def publish(self, caller: Caller) -> Scope:
            return Scope(workspaces=frozenset({W} if caller.id == "ada" else ()))

    async with serving(nats_server.url, ruled_by=Rule(ada=Scope(), eve=Scope())):
        connection = await nats.connect(nats_server.url)
        try:
            for token, code in (("ada", None), ("eve", "PERMISSION_DENIED")):
                headers = headers_of() | {"Authorization": f"Bearer {token}"}
                message = await connection.request(
                    f"zephyr-publish.0.{W}.note.n", b"", timeout=10, headers=headers
                )
                answer = json.loads(message.data)
                assert answer.get("error", {}).get("code") == code, answer
                if code is None:
                    _, event = await Plain(connection).read(answer["sequence"])
                    assert event.get_extension("actor") == "ada"
        finally:
            await connection.close()


async def test_what_publishers_store_over_grpc_are_cloudevents_too(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, publish_client(address) as client:
        stored = await client.publish(
            new_event("n", note=Note(id="n"), actor="Zoë %", time=1_700_000_000_000_000), request_id="50% off"
        )
        connection = await nats.connect(nats_server.url)
        try:
            subject, event = await Plain(connection).read(stored.sequence)
        finally:
            await connection.close()
    envelope = Event.FromString(event.get_data())  # type: ignore[arg-type]
    assert subject == str(fmt.Subject(W, "note", "n", "event"))
    assert event.get_id() == envelope.id == stored.event_id
    assert (event.get_type(), event.get_source()) == (envelope.type, envelope.source)
    assert event.get_extension("actor") == "Zoë %"
    assert event.get_time() == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def test_a_broadcast_is_a_cloudevent_too(nats_server: NatsServer, writer: StreamWriter) -> None:
    connection = await nats.connect(nats_server.url)
    try:
        async with serving(nats_server.url) as address:
            live = await connection.subscribe("zephyr-live.>")
            await connection.flush()
            await broadcast(address, new_event("n", "typing", note=Note(id="n")))
            message = await live.next_msg(timeout=10)
    finally:
        await connection.close()
    event = cloud_event(dict(message.headers or {}), message.data)
    assert (event.get_type(), event.get_subject(), event.get_extension("workspaceid")) == (
        "note.typing",
        "n",
        W,
    )
    assert Event.FromString(message.data).id == event.get_id()


async def test_messages_that_the_configuration_allows(
    nats_server: NatsServer, writer: StreamWriter, tmp_path: Path
) -> None:
    file = FileDescriptorProto(name="acme.proto", package="acme.v1", syntax="proto3")
    field = file.message_type.add(name="OrderPlaced").field.add(name="order_id", number=1)
    field.type, field.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    descriptors = tmp_path / "acme.binpb"
    descriptors.write_bytes(FileDescriptorSet(file=[file]).SerializeToString())
    body = b"\x0a\x02o1"
    async with serving(
        nats_server.url,
        publish_types="acme.v1.OrderPlaced",
        publish_descriptors=str(descriptors),
        kinds="order",
    ):
        connection = await nats.connect(nats_server.url)
        plain = Plain(connection)
        to = f"zephyr-publish.0.{W}.order.o1"
        try:
            for data, content_type, schema in (
                (b'{"@type": "type.googleapis.com/acme.v1.OrderPlaced", "orderId": "o1"}', None, None),
                (body, "application/protobuf", "https://type.googleapis.com/acme.v1.OrderPlaced"),
                (
                    Packed(type_url="x/acme.v1.OrderPlaced", value=body).SerializeToString(),
                    "application/protobuf",
                    "https://type.googleapis.com/google.protobuf.Any",
                ),
            ):
                answer = await plain.ask(
                    to, data, type="order.placed", datacontenttype=content_type, dataschema=schema
                )
                _, event = await plain.read(answer["sequence"])
                other = Event.FromString(event.get_data()).other  # type: ignore[arg-type]
                assert (other.type_url.rpartition("/")[2], other.value) == ("acme.v1.OrderPlaced", body)
            for data in (
                b'{"@type": "x/acme.v1.Nothing"}',
                b'{"@type": "x/acme.v1.OrderPlaced", "no": 1}',
                b"{}",
                b"7",
            ):
                error = (await plain.ask(to, data, type="order.placed"))["error"]
                assert error["violations"][0]["field"] == "data", error
            error = (await plain.ask(to, b"x", type="order.placed", datacontenttype="application/protobuf"))[
                "error"
            ]
            assert error["violations"][0]["field"] == "ce-dataschema"
        finally:
            await connection.close()


async def test_what_the_bridge_stores_when_it_is_asked_to(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"INSERT INTO workspaces (id, slug, name) VALUES ('{W}', 'one', 'One')".encode())
        async with running(bridge_settings.model_copy(update={"cloudevents": "on"})):
            connection.execute(f"INSERT INTO notes (workspace_id, title) VALUES ('{W}', 'a')".encode())
            connection.execute(b"UPDATE notes SET title = 'b'")
            connection.execute(b"TRUNCATE notes")
            await stream_reader.caught_up(dsn)
    stored = await stream_reader.events()
    events = [cloud_event(message.headers, message.payload) for message in stored]
    verbs = ["workspace.read", "note.created", "note.updated", "note.truncated"]
    assert [event.get_type() for event in events] == verbs
    for message, event in zip(stored, events, strict=True):
        envelope = Event.FromString(message.payload)
        assert event.get_id() == envelope.id == message.headers[fmt.ID]
        assert (event.get_source(), event.get_subject()) == (envelope.source, envelope.subject)
        assert event.get_extension("workspaceid") == envelope.workspace_id
        assert event.get_extension("commit") == message.headers.get(fmt.COMMIT)
        assert event.get_extension("changed") == message.headers.get(fmt.CHANGED)
        at = event.get_time()
        assert at is not None
        assert (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == envelope.time
