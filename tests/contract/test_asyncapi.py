"""``docs/asyncapi.yaml`` against the shape of such documents, the names in the code, and messages of a real stream.

A header, a verb or a subject that the code has and the document has not makes it fail, and the other way round.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import nats
import psycopg
import pytest
import yaml
from google.protobuf import descriptor_pool
from jsonschema import Draft7Validator

from bridge import dead_letters
from bridge.settings import BridgeSettings
from bridge.status import status_subject
from protos import cloudevents as ce
from protos.events.v1 import publish_pb2 as pb
from protos.events.v1 import stream_format as fmt
from realtime.services import cloud_events
from tests.fixtures.bridge import running
from tests.fixtures.broadcasts import broadcast
from tests.fixtures.publish_kit import W, batched, new_event, publish_client
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_reader import Reader

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "asyncapi.yaml"
_HEADER = re.compile(r"(Zephyr|Nats|ce)-[A-Za-z-]+\Z|traceparent\Z")


class Document:
    """The document, with its references followed."""

    def __init__(self) -> None:
        self.raw: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text("utf-8"))

    def at(self, reference: str) -> Any:
        found: Any = self.raw
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def followed(self, value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref", "")
            if reference.startswith("#/"):
                return self.followed(self.at(reference))
            return {key: self.followed(each) for key, each in value.items()}
        return [self.followed(each) for each in value] if isinstance(value, list) else value

    @property
    def channels(self) -> dict[str, Any]:
        return {name: self.followed(channel) for name, channel in self.raw["channels"].items()}

    def channel_of(self, subject: str) -> str:
        """The one channel that a subject belongs to."""
        found: list[str] = [
            name
            for name, channel in self.raw["channels"].items()
            if channel["address"] and _pattern(channel["address"]).fullmatch(subject)
        ]
        assert len(found) == 1, (subject, found)
        return found[0]

    def headers(self, channel: str) -> dict[str, Any]:
        (message,) = self.channels[channel]["messages"].values()
        headers: dict[str, Any] = message["headers"]
        return headers

    def check(self, subject: str, headers: dict[str, str]) -> str:
        """A stored message's subject and headers; gives the channel."""
        channel = self.channel_of(subject)
        Draft7Validator(self.headers(channel)).validate(headers)
        return channel


def _pattern(address: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", r"[^.]+", re.escape(address)))


@pytest.fixture(scope="module")
def document() -> Document:
    return Document()


def constants(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if name.isupper() and not name.startswith("_") and isinstance(value, str):
            yield value


_REF: dict[str, Any] = {"type": "object", "required": ["$ref"], "properties": {"$ref": {"type": "string"}}}
_OBJECTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "object"}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    """What has these fields and no others but extensions."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    }


_TEXT: dict[str, Any] = {"type": "string"}
_LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_COMMON: dict[str, Any] = {
    "title": _TEXT, "summary": _TEXT, "description": _TEXT, "tags": _LIST,
    "externalDocs": {"type": "object"}, "bindings": {"type": "object"},
}  # fmt: skip
_MESSAGE = _object(
    [],
    **_COMMON,
    name=_TEXT,
    headers={"type": "object"},
    payload={"type": "object"},
    contentType=_TEXT,
    correlationId={"type": "object"},
    examples=_LIST,
    traits=_LIST,
)
_CHANNEL = _object(
    [],
    **_COMMON,
    address={"type": ["string", "null"]},
    messages={"type": "object", "additionalProperties": {"anyOf": [_REF, _MESSAGE]}},
    servers={"type": "array", "items": _REF},
    parameters=_OBJECTS,
)
_OPERATION = _object(
    ["action", "channel"],
    **_COMMON,
    action={"enum": ["send", "receive"]},
    channel=_REF,
    messages={"type": "array", "items": _REF},
    security=_LIST,
    traits=_LIST,
    reply=_object([], address={"type": "object"}, channel=_REF, messages={"type": "array", "items": _REF}),
)
_DOCUMENT = _object(
    ["asyncapi", "info"],
    asyncapi={"const": "3.0.0"},
    id=_TEXT,
    info=_object(
        ["title", "version"],
        title=_TEXT, version=_TEXT, description=_TEXT, termsOfService=_TEXT, tags=_LIST,
        contact={"type": "object"}, license={"type": "object"}, externalDocs={"type": "object"},
    ),
    servers={"type": "object", "additionalProperties": {"type": "object", "required": ["host", "protocol"]}},
    defaultContentType=_TEXT,
    channels={"type": "object", "additionalProperties": {"anyOf": [_REF, _CHANNEL]}},
    operations={"type": "object", "additionalProperties": {"anyOf": [_REF, _OPERATION]}},
    components={
        "type": "object",
        "properties": {
            "messages": {"type": "object", "additionalProperties": {"anyOf": [_REF, _MESSAGE]}},
            "channels": {"type": "object", "additionalProperties": {"anyOf": [_REF, _CHANNEL]}},
            "operations": {"type": "object", "additionalProperties": {"anyOf": [_REF, _OPERATION]}},
        },
        "additionalProperties": {"type": "object"},
    },
)  # fmt: skip
"""The shape of a document, by the AsyncAPI specification 3.0.0: its fields, and no others."""


def test_it_is_an_asyncapi_document(document: Document) -> None:
    jsonschema.Draft202012Validator(_DOCUMENT).validate(document.raw)


def test_its_references_lead_somewhere(document: Document) -> None:
    document.followed(document.raw)
    pool = descriptor_pool.Default()
    for message in document.followed(document.raw["components"]["messages"]).values():
        if (name := message.get("x-protobuf-message")) is None:
            continue
        file = DOCUMENT.parent / message["payload"]["schema"]["$ref"]
        assert re.search(rf"^message {name.rpartition('.')[2]} ", file.read_text("utf-8"), re.MULTILINE), name
        assert pool.FindMessageTypeByName(name).file.name == str(file.resolve().relative_to(ROOT))


def test_headers_are_those_of_the_code(document: Document) -> None:
    in_code = {
        value
        for module in (fmt, ce, dead_letters)
        for value in constants(module)
        if _HEADER.match(value) and value != ce.PREFIX
    }
    told: dict[str, set[str]] = {
        name: set(document.headers(name).get("properties", {}))
        for name in document.channels
        if name not in ("publishAnswers", "backfillRequests", "statusRequests")
    }
    assert in_code - set().union(*told.values()) == set()
    # Those of the broker are its own: not each has a constant here.
    ours = {name for names in told.values() for name in names if not name.startswith("Nats-")} - {
        "Authorization"
    }
    assert ours - in_code == set()
    attributes = {value for value in constants(ce) if value.startswith(ce.PREFIX)} - {ce.PREFIX}
    of_rows = {ce.CHANGED, ce.COMMIT}
    for channel, missing in (
        ("rows", set()),
        ("events", of_rows),
        ("broadcasts", of_rows),
        ("publishRequests", of_rows),
    ):
        assert {name for name in told[channel] if name.startswith(ce.PREFIX)} == attributes - missing, channel


def test_verbs_are_those_of_the_code(document: Document) -> None:
    assert set(document.headers("rows")["properties"][fmt.VERB]["enum"]) == set(fmt.ROW_VERBS)


def test_subjects_are_those_of_the_code(document: Document) -> None:
    made = [str(fmt.Subject(W, "note", "n", suffix)) for suffix in ("row", "event")]
    made += [
        fmt.producer_subject("p"),
        fmt.publish_subject(W, "note", "n"),
        f"{fmt.DEAD_LETTERS}.0.e.note.0-0.1",
    ]
    made += [fmt.backfill_subject("ZEPHYR"), status_subject("ZEPHYR"), fmt.live_subject(W, "note", "n")]
    made += [
        value
        for name, value in vars(fmt).items()
        if name.endswith("_SUBJECT") and value.startswith("zephyr.")
    ]
    found = {document.channel_of(subject) for subject in made}
    assert found == document.channels.keys() - {"publishAnswers"}
    assert (
        document.raw["operations"]["receivePublishRequests"]["bindings"]["nats"]["queue"]
        == cloud_events.QUEUE
    )


@pytest.mark.timeout(90)
@pytest.mark.parametrize("cloudevents", ["off", "on"])
async def test_a_real_stream_is_as_it_says(
    document: Document, bridge_settings: BridgeSettings, stream_reader: Reader, cloudevents: str
) -> None:
    bridge_settings = bridge_settings.model_copy(update={"cloudevents": cloudevents})
    dsn = bridge_settings.postgres_dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"INSERT INTO workspaces (id, slug, name) VALUES ('{W}', 'one', 'One')".encode())
        client = await nats.connect(bridge_settings.nats_url)
        try:
            async with (
                running(bridge_settings),
                serving(bridge_settings.nats_url, postgres_dsn=dsn) as address,
                publish_client(address) as publisher,
            ):
                connection.execute(f"INSERT INTO notes (workspace_id, title) VALUES ('{W}', 'a')".encode())
                connection.execute(b"UPDATE notes SET title = 'b'")
                connection.execute(b"DELETE FROM notes")
                connection.execute(b"TRUNCATE notes")
                await publisher.publish(new_event("n"), request_id="r")
                await publisher.publish(
                    new_event("n"), producer=pb.ProducerPlace(producer_id="p", sequence=1)
                )
                await publisher.batch([batched("x"), batched("y", version=0)])
                headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "note.shared"}
                headers |= {"ce-priority": "7", "ce-actor": "%20", "ce-time": "2026-01-01T00:00:00Z"}
                live = await client.subscribe(fmt.LIVE_SUBJECTS)
                await client.flush()
                await broadcast(address, new_event("n", actor="anna"))
                heard = await live.next_msg(timeout=10)
                assert document.check(heard.subject, dict(heard.headers or {})) == "broadcasts"
                subject = fmt.publish_subject(W, "note", "n")
                Draft7Validator(document.headers("publishRequests")).validate(headers)
                stored = json.loads((await client.request(subject, b"{}", timeout=10, headers=headers)).data)
                refused = json.loads((await client.request(subject, b"{", timeout=10, headers=headers)).data)
                await stream_reader.caught_up(dsn)
                seen = set()
                last = (await client.jetstream().stream_info("ZEPHYR")).state.last_seq
                for sequence in range(1, last + 1):
                    message = await client.jetstream().get_msg("ZEPHYR", sequence)
                    seen.add(document.check(message.subject or "", dict(message.headers or {})))
        finally:
            await client.close()
    assert seen >= {"rows", "events", "positions", "owners", "snapshots", "producers"}
    answers = document.channels["publishAnswers"]["messages"]
    Draft7Validator(answers["stored"]["payload"]).validate(stored)
    Draft7Validator(answers["refused"]["payload"]).validate(refused)
