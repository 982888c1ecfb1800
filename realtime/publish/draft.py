"""An event as a client sent it → the message that is stored: subject, headers, envelope. No I/O.

What the contract's rules do not say is checked here: verbs and kinds, the clock, the data, the size.
The rules are kept already, so every part fits its place in a subject or a header.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final
from urllib.parse import quote

from protos import cloudevents as ce
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import Expectation, NewEvent, ProducedEvent
from protos.schema_name import schema_name
from protos.wire import delimited, varint_field
from realtime.errors import ArgumentInvalid, RealtimeError
from realtime.publish.commands import Message
from realtime.publish.item import Item
from realtime.publish.payloads import Payloads

_chance: Final = random.Random(os.urandom(32))

_FUTURE_US: Final = 60_000_000
"""Clocks differ by less."""
_HEADERS_BYTES: Final = 8192
"""What stands beside the payload, at most: headers of our own, and the broker's."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_UUID_LENGTH: Final = 36
_MOST_PLACES: Final = 4096
_DATA: Final = {field.name: field.number for field in Event.DESCRIPTOR.oneofs_by_name["data"].fields}
_SCHEMAS: Final = {
    field.name: schema_name(field.message_type)
    for field in Event.DESCRIPTOR.oneofs_by_name["data"].fields
    if field.message_type is not None and field.name not in ("other", "rejected")
}


class _Place:
    """What events of one kind and verb in one workspace have in common: computed once, and checked then."""

    __slots__ = ("begins", "head", "subject", "workspace")

    def __init__(self, subject: str, head: str, begins: bytes, workspace: bytes) -> None:
        self.subject = subject
        self.head = head
        self.begins = begins
        self.workspace = workspace


class Ask:
    """What the events of a stream have in common. ``check`` holds one against the contract's rules, ``admit`` (None:
    all may) against what the caller may, and ``expected`` reads what it expects."""

    __slots__ = ("actor", "admit", "check", "checks_rules", "expected", "producer_id", "source")

    def __init__(
        self,
        producer_id: str,
        source: str,
        actor: str,
        check: Callable[[ProducedEvent], object],
        admit: Callable[[NewEvent], object] | None,
        expected: Callable[[Expectation], int],
    ) -> None:
        self.producer_id = producer_id
        self.source = source
        self.actor = actor
        self.check = check
        self.admit = admit
        self.expected = expected
        self.checks_rules = True
        """Whether it is not known that all keep the rules."""


class Drafter:
    """Makes messages of events. ``kinds`` exist, ``payloads`` may be in ``other``, an envelope has ``max_bytes``
    at most."""

    def __init__(self, kinds: Collection[str], payloads: Payloads, max_bytes: int) -> None:
        self._kinds = frozenset(kinds)
        self.payloads = payloads
        self._max_bytes = max_bytes
        self._places: dict[tuple[str, str, str, str], _Place] = {}

    def bounded_by(self, max_payload: int) -> None:
        """The broker takes messages of so many bytes at most."""
        self._max_bytes = min(self._max_bytes, max_payload - _HEADERS_BYTES)

    def items(self, events: Iterable[ProducedEvent], ask: Ask) -> list[Item]:
        """The events of a stream; those that cannot be stored have their error."""
        made: list[Item] = []
        producer_id, source, actor = ask.producer_id, ask.source, ask.actor
        admit = ask.admit
        for produced in events:
            sequence = produced.sequence
            event_id = f"{producer_id}.{sequence}" if producer_id else new_event_id()
            try:
                if ask.checks_rules:
                    ask.check(produced)
                new = produced.event
                if admit is not None:
                    admit(new)
                message = self.message(new, event_id, source, actor)
                expected = ask.expected(produced.expectation) if produced.HasField("expectation") else -1
                made.append(Item(sequence, message, event_id, expected))
            except RealtimeError as exc:
                made.append(Item.refused(sequence, exc))
        return made

    def message(self, new: NewEvent, event_id: str, source: str, caller: str, more: str = "") -> Message:
        """What is stored. ``more`` are further headers.

        Raises:
            ArgumentInvalid: it cannot be.
        """
        kind = new.kind
        key = (new.workspace_id, kind, new.verb, source)
        place = self._places.get(key)
        if place is None:
            place = self._place(key)
        now_us = time.time_ns() // 1000
        at_us = new.time or now_us
        if at_us > now_us + _FUTURE_US:
            raise _invalid(
                "TIME_IN_FUTURE",
                "event.time",
                f"it is {(at_us - now_us) / 1e6:.0f} s in the future by this server's clock",
                "leave it out, or set the clock",
            )
        entity = new.entity_id
        if len(entity) == _UUID_LENGTH and _UUID.match(entity):
            entity = entity.lower()
        ce_id = event_id.replace("%", "%25")
        head = (
            f"{fmt.ID}: {event_id}\r\n{place.head}{ce.ID}: {ce_id}\r\n{ce.SUBJECT}: {entity}\r\n"
            f"{ce.TIME}: {ce.format_time(at_us)}\r\n{more}"
        )
        # In the order of their numbers, as protobuf writes them.
        parts = [
            delimited(Event.ID_FIELD_NUMBER, event_id.encode()),
            place.begins,
            delimited(Event.SUBJECT_FIELD_NUMBER, entity.encode()),
            varint_field(Event.TIME_FIELD_NUMBER, at_us),
            place.workspace,
        ]
        data = new.WhichOneof("data")
        if data is not None:
            schema = self._schema(new, kind, data)
            parts.append(delimited(Event.DATA_SCHEMA_FIELD_NUMBER, schema.encode()))
            head = f"{head}{fmt.SCHEMA}: {schema}\r\n"
        actor = new.actor or caller
        if actor:
            parts.append(delimited(Event.ACTOR_FIELD_NUMBER, actor.encode()))
            head = f"{head}{fmt.ACTOR}: {actor}\r\n{ce.ACTOR}: {ce.encode(actor)}\r\n"
        if new.HasField("metadata"):
            correlation, trace = new.metadata.correlation_id, new.metadata.traceparent
            if correlation:
                parts.append(delimited(Event.CORRELATION_ID_FIELD_NUMBER, correlation.encode()))
                head = f"{head}{fmt.CORRELATION}: {correlation}\r\n{ce.CORRELATION}: {ce.encode(correlation)}\r\n"
            if trace:
                parts.append(delimited(Event.TRACEPARENT_FIELD_NUMBER, trace.encode()))
                head = f"{head}{fmt.TRACEPARENT}: {trace}\r\n{ce.TRACEPARENT}: {trace}\r\n"
        if data is not None:
            body: bytes = getattr(new, data).SerializeToString()
            parts.append(delimited(_DATA[data], body))
        payload = b"".join(parts)
        if len(payload) > self._max_bytes:
            raise _invalid(
                "EVENT_TOO_LARGE",
                "event",
                f"it has {len(payload)} bytes, at most {self._max_bytes} are possible",
                "store the large part elsewhere and name it, or raise ZEPHYR_PUBLISH_MAX_BYTES"
                " and the broker's max_payload",
            )
        return Message(f"{place.subject}{entity}.event", head, payload)

    def _place(self, key: tuple[str, str, str, str]) -> _Place:
        workspace, kind, verb, source = key
        if verb in fmt.ROW_VERBS:
            raise _invalid(
                "ROW_VERB",
                "event.verb",
                f"{verb!r} tells of a row, and rows are told by the bridge alone",
                "change the row in Postgres, or choose a verb of your domain, such as 'shared'",
            )
        if kind not in self._kinds:
            raise _invalid(
                "UNKNOWN_KIND",
                "event.kind",
                f"unknown kind {kind!r}",
                f"use one of: {', '.join(sorted(self._kinds))}, or add it to ZEPHYR_KINDS",
            )
        workspace = workspace.lower()
        place = _Place(
            f"{fmt.ROOT}.{fmt.SHARD}.{workspace}.{kind}.",
            f"{fmt.VERB}: {verb}\r\n{ce.shared_head(f'{kind}.{verb}', source, workspace)}",
            delimited(Event.TYPE_FIELD_NUMBER, f"{kind}.{verb}".encode())
            + delimited(Event.SOURCE_FIELD_NUMBER, source.encode()),
            delimited(Event.WORKSPACE_ID_FIELD_NUMBER, workspace.encode()),
        )
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[key] = place
        return place

    def _schema(self, new: NewEvent, kind: str, data: str) -> str:
        if data == "other":
            return self.payloads.check(new.other)
        if data != kind:
            raise _invalid(
                "DATA_MISFIT",
                f"event.{data}",
                f"an event of the kind {kind!r} has no data of a {data}",
                f"set {kind}, other, or nothing" if kind in _SCHEMAS else "set other, or nothing",
            )
        return _SCHEMAS[data]


def new_event_id() -> str:
    """A UUID of version 7: the time in milliseconds, then chance (RFC 9562)."""
    value = (time.time_ns() // 1_000_000) << 80 | _chance.getrandbits(80)
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def quoted(text: str) -> str:
    """A text of a caller's, so that it can stand in a header or a URI."""
    return quote(text, safe="")


def source_of(producer_or_caller: str) -> str:
    """The ``source`` of events."""
    return f"/publisher/{quoted(producer_or_caller) or '_'}"


def _invalid(reason: str, field: str, description: str, mend: str) -> ArgumentInvalid:
    error = ArgumentInvalid(field, description, mend)
    error.reason = reason
    return error
