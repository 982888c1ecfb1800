"""What a broadcast must be, and the event that it becomes. No I/O."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection
from typing import Final

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from protos.schema_name import schema_name
from realtime.errors import ArgumentInvalid, LimitExceeded
from realtime.filters import parse_uuid

SOURCE: Final = "/zephyr/broadcast"
_VERB: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_MAX_ID: Final = 256
_MAX_ACTOR: Final = 256
_SCHEMAS: Final = {
    field.name: schema_name(field.message_type)
    for field in NewEvent.DESCRIPTOR.oneofs_by_name["data"].fields
    if field.message_type is not None
}
_FUTURE_US: Final = 5_000_000
"""Clocks differ by so much."""


def make_broadcast(new: NewEvent, kinds: Collection[str], caller: str = "") -> Event:
    """The event that is broadcast; ``kinds`` are those that exist, ``caller`` stands for an actor that is not named.

    Raises:
        ArgumentInvalid: a field cannot be what it is.
    """
    now = time.time_ns() // 1000
    workspace = new.workspace_id
    if workspace != fmt.NONE:
        workspace = parse_uuid("event.workspace_id", workspace)
    if new.kind not in kinds:
        raise ArgumentInvalid(
            "event.kind", f"unknown kind {new.kind[:64]!r}", f"use one of: {', '.join(sorted(kinds))}"
        )
    if len(new.entity_id) > _MAX_ID or not fmt.is_token(new.entity_id) or new.entity_id == fmt.NONE:
        raise ArgumentInvalid(
            "event.entity_id", "it is no id of an entity", "use letters, digits, '-' and '_'"
        )
    if new.verb in fmt.ROW_VERBS:
        raise ArgumentInvalid(
            "event.verb",
            f"{new.verb!r} says what became of a row",
            "use a verb of your own, such as 'typing'",
        )
    if _VERB.fullmatch(new.verb) is None:
        raise ArgumentInvalid(
            "event.verb",
            f"{new.verb[:64]!r} is no verb",
            "use lower case, such as 'typing'; at most 64 letters",
        )
    if new.time < 0 or new.time > now + _FUTURE_US:
        raise ArgumentInvalid("event.time", "it is not in the past", "leave it out: 0 is now")
    if len(new.actor) > _MAX_ACTOR:
        raise ArgumentInvalid("event.actor", f"it has more than {_MAX_ACTOR} letters")
    event = Event(
        id=str(uuid.uuid4()),
        type=f"{new.kind}.{new.verb}",
        source=SOURCE,
        subject=_canonical(new.entity_id),
        time=new.time or now,
        workspace_id=workspace,
        actor=new.actor or caller,
        correlation_id=new.metadata.correlation_id,
        traceparent=new.metadata.traceparent,
    )
    _take_data(event, new)
    return event


def check_size(payload: bytes, max_bytes: int) -> None:
    """
    Raises:
        LimitExceeded: the event is larger than a broadcast may be.
    """
    if len(payload) > max_bytes:
        raise LimitExceeded(
            f"the broadcast has {len(payload)} bytes, at most {max_bytes} are possible",
            "send less, or publish what must arrive",
        )


def _take_data(event: Event, new: NewEvent) -> None:
    name = new.WhichOneof("data")
    if name is None:
        return
    if name not in ("other", new.kind):
        raise ArgumentInvalid(
            f"event.{name}", f"it is no data of the kind {new.kind!r}", f"use {new.kind!r} or 'other'"
        )
    getattr(event, name).CopyFrom(getattr(new, name))
    event.data_schema = new.other.type_url.rpartition("/")[2] if name == "other" else _SCHEMAS[name]


def _canonical(entity: str) -> str:
    try:
        return parse_uuid("event.entity_id", entity)
    except ArgumentInvalid:
        return entity
