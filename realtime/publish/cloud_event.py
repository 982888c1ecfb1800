"""A CloudEvent as a plain NATS client sends it (subject, headers, data) → the request that it makes. No I/O.

Binary content mode: attributes in ``ce-`` headers, data as they are. Where the event goes stands in the subject, and
attributes must not contradict it. All that is wrong is told, not the first. What must hold of the event itself is
checked where all events are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from protos import cloudevents as ce
from protos.events.v1 import publish_pb2 as pb
from protos.events.v1 import stream_format as fmt
from realtime.errors import ArgumentInvalid
from realtime.publish.payloads import Payloads, one_line
from realtime.publish.rules import RuleBroken

_OWN_SOURCES: Final = ("/postgres/", "/publisher/")
_MOST_SOURCE_BYTES: Final = 256
_MOST_KEPT_BYTES: Final = 2048
_MOST_JSON_BYTES: Final = 256 * 1024
"""JSON is read in one piece, while all else of the server waits."""
_PROTOBUF: Final = (ce.PROTOBUF, "application/x-protobuf", "application/vnd.google.protobuf")
_READ: Final = frozenset(
    (
        *(ce.ID, ce.SOURCE, ce.TYPE, ce.SPECVERSION, ce.SUBJECT, ce.TIME, ce.DATACONTENTTYPE, ce.DATASCHEMA),
        *(ce.WORKSPACE, ce.ACTOR, ce.CORRELATION, ce.TRACEPARENT),
    )
)
_NAME: Final = re.compile(r"ce-[a-z0-9]{1,64}\Z")
_SOURCE: Final = re.compile(r"[^\x00-\x20\x7f-\x9f]+\Z")
_TYPE_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\Z", re.ASCII)
_ANY: Final = "google.protobuf.Any"


class CloudEvent:
    """What is asked for. ``kept`` are headers of attributes that the envelope has no place for."""

    __slots__ = ("event_id", "kept", "request", "source")

    def __init__(self, request: pb.PublishRequest, source: str, kept: str) -> None:
        self.request = request
        self.source = source
        self.event_id = ce.encode(request.request_id)
        self.kept = kept


def read_cloud_event(subject: str, headers: Mapping[str, str], data: bytes, payloads: Payloads) -> CloudEvent:
    """What a message to a subject of publish requests asks for.

    Raises:
        RuleBroken: it is no CloudEvent that can be stored.
    """
    reading = _Reading(headers)
    _, _, workspace, kind, entity = subject.split(".")
    event = pb.NewEvent(workspace_id=workspace, kind=kind, entity_id=entity)
    reading.matches(ce.SPECVERSION, ce.SPEC_VERSION, is_required=True)
    reading.matches(ce.WORKSPACE, workspace)
    reading.matches(ce.SUBJECT, entity)
    source = reading.source()
    event.verb = reading.verb(kind)
    event.time = reading.time()
    event.actor = reading.text(ce.ACTOR)
    event.metadata.correlation_id = reading.text(ce.CORRELATION)
    event.metadata.traceparent = reading.text(ce.TRACEPARENT) or reading.text(fmt.TRACEPARENT)
    kept = reading.kept()
    try:
        _set_data(event, reading.text(ce.DATACONTENTTYPE), reading.text(ce.DATASCHEMA), data, payloads)
    except ArgumentInvalid as exc:
        reading.wrong += exc.violations
    request = pb.PublishRequest(event=event, request_id=reading.text(ce.ID, is_required=True))
    if reading.wrong:
        raise RuleBroken(reading.wrong)
    return CloudEvent(request, source, kept)


class _Reading:
    """The attributes of one event, and what is wrong with them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.wrong: list[tuple[str, str]] = []
        self._texts: dict[str, str] = {}
        structured = False
        for name, value in headers.items():
            lower = name.lower()
            structured = structured or (
                lower == "content-type" and "application/cloudevents" in value.lower()
            )
            if lower.startswith(ce.PREFIX) or lower == fmt.TRACEPARENT:
                try:
                    self._texts[lower] = ce.decode(value)
                except ValueError:
                    self.wrong.append((lower, "what is percent-encoded is no UTF-8"))
        if structured:
            self.wrong.append(("content-type", "send it in binary content mode: attributes as ce- headers"))

    def text(self, name: str, *, is_required: bool = False) -> str:
        found = self._texts.get(name, "")
        if is_required and not found:
            self.wrong.append((name, "it is missing, and every CloudEvent has it"))
        return found

    def matches(self, name: str, wanted: str, *, is_required: bool = False) -> None:
        found = self.text(name, is_required=is_required)
        if found and found.lower() != wanted.lower():
            self.wrong.append((name, f"it is {found[:128]!r}, and must be {wanted[:128]!r}, or left out"))

    def source(self) -> str:
        found = self.text(ce.SOURCE, is_required=True)
        if found.startswith(_OWN_SOURCES):
            self.wrong.append(
                (ce.SOURCE, f"what begins with {' or '.join(_OWN_SOURCES)} is said by Zephyr alone")
            )
        if len(found.encode()) > _MOST_SOURCE_BYTES or (found and not _SOURCE.match(found)):
            self.wrong.append(
                (ce.SOURCE, f"it must be a URI reference of at most {_MOST_SOURCE_BYTES} bytes")
            )
        return found

    def verb(self, kind: str) -> str:
        found = self.text(ce.TYPE, is_required=True)
        of, _, verb = found.partition(".")
        if found and (of != kind or not verb):
            self.wrong.append(
                (ce.TYPE, f"it is {found[:128]!r}, and must be the subject's kind and a verb: {kind}.…")
            )
        return verb

    def time(self) -> int:
        found = self.text(ce.TIME)
        if not found:
            return 0
        try:
            return max(1, ce.parse_time(found))
        except ValueError as exc:
            self.wrong.append((ce.TIME, f"it is no time as RFC 3339 has it: {exc}"))
            return 0

    def kept(self) -> str:
        """Headers of the extension attributes that are nothing to us; readers get them back."""
        others = {
            name: text for name, text in self._texts.items() if name not in _READ and name != fmt.TRACEPARENT
        }
        for name in others:
            if name in (ce.CHANGED, ce.COMMIT):
                self.wrong.append((name, "it is said of rows, by the bridge alone"))
            elif not _NAME.match(name):
                self.wrong.append(
                    (name[:128], "names of attributes have lower-case letters and digits alone")
                )
        result = "".join(f"{name}: {ce.encode(text)}\r\n" for name, text in others.items())
        if len(result) > _MOST_KEPT_BYTES:
            self.wrong.append(
                ("ce-", f"extension attributes have {len(result)} bytes, at most {_MOST_KEPT_BYTES}")
            )
        return result


def _set_data(event: pb.NewEvent, content_type: str, schema: str, data: bytes, payloads: Payloads) -> None:
    media = content_type.partition(";")[0].strip().lower() or ce.JSON
    own = event.DESCRIPTOR.oneofs_by_name["data"]
    field = next((each.name for each in own.fields if each.name == event.kind != "other"), "")
    name = next((part for part in reversed(schema.split("/")) if _TYPE_NAME.match(part)), "")
    if schema and not name:
        raise ArgumentInvalid(
            ce.DATASCHEMA, "it names no protobuf message", f"name it: {ce.TYPE_URL}acme.v1.OrderPlaced"
        )
    if media == ce.JSON:
        if data:
            _set_json(event, field, name, data, payloads)
    elif media in _PROTOBUF:
        if data or name:
            _set_protobuf(event, field, name, data)
    else:
        raise ArgumentInvalid(
            ce.DATACONTENTTYPE, f"{media[:128]!r} is not read here", f"send {ce.JSON} or {ce.PROTOBUF}"
        )


def _set_json(event: pb.NewEvent, field: str, name: str, data: bytes, payloads: Payloads) -> None:
    if len(data) > _MOST_JSON_BYTES:
        raise ArgumentInvalid(
            "data", f"JSON has {len(data)} bytes, at most {_MOST_JSON_BYTES}", "send protobuf"
        )
    try:
        document = data.decode("utf-8")
        # A message of the contract has no field of that name.
        if not field or '"@type"' in document:
            event.other.CopyFrom(payloads.from_json(document))
            found = event.other.type_url.rpartition("/")[2]
        else:
            message: Message = getattr(event, field)
            json_format.Parse(document, message)
            message.SetInParent()
            found = message.DESCRIPTOR.full_name
    except (UnicodeDecodeError, json_format.ParseError, RecursionError) as exc:
        raise ArgumentInvalid("data", f"it cannot be read as JSON: {one_line(exc)}") from exc
    if name and name not in (found, _ANY):
        raise ArgumentInvalid(ce.DATASCHEMA, f"it names {name}, and the data are {found}")


def _set_protobuf(event: pb.NewEvent, field: str, name: str, data: bytes) -> None:
    try:
        if name == _ANY:
            event.other.ParseFromString(data)
        elif field and name in ("", getattr(event, field).DESCRIPTOR.full_name):
            message: Message = getattr(event, field)
            message.ParseFromString(data)
            message.SetInParent()
        elif name:
            event.other.type_url = f"type.googleapis.com/{name}"
            event.other.value = data
        else:
            raise ArgumentInvalid(ce.DATASCHEMA, "it is needed, to say which message the data are")
    except DecodeError as exc:
        raise ArgumentInvalid("data", f"they are no {name or field}") from exc
