"""Broadcasts: events that are stored nowhere, as a client sends them and as a subscription gives them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Required, TypedDict

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from protos.events.v1.stream_pb2 import Broadcasts
from realtime.client.start import unix_us


@dataclass(frozen=True, slots=True)
class BroadcastEvent:
    """An event for whoever listens now. It has no place in the stream: neither sequence nor cursor."""

    event: Event

    @property
    def kind(self) -> str:
        return self.event.type.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.event.type.partition(".")[2]


@dataclass(frozen=True, slots=True)
class BroadcastsDropped:
    """So many broadcasts that matched were dropped before the next one, since they came faster than they were
    handled."""

    count: int


Broadcast = BroadcastEvent | BroadcastsDropped


class BroadcastFields(TypedDict, total=False):
    """What a broadcast says."""

    kind: Required[str]
    """Such as ``note``."""
    entity: Required[str]
    """Id of the entity that it is about."""
    verb: Required[str]
    """What happens, such as ``typing``; not one of rows (created, updated, …)."""
    workspace: str
    """UUID of the workspace that routes it; none when it is left out."""
    data: Message | None
    """The model of the kind, or any other message."""
    actor: str
    """Who causes it; the caller when it is left out."""
    time: datetime | None
    """When it happens; now when it is left out."""
    correlation_id: str
    traceparent: str


def new_event(fields: BroadcastFields) -> NewEvent:
    """The event as it is sent.

    Raises:
        ArgumentInvalid: the time has no zone.
    """
    event = NewEvent(
        workspace_id=fields.get("workspace", "_"),
        kind=fields["kind"],
        entity_id=fields["entity"],
        verb=fields["verb"],
        actor=fields.get("actor", ""),
    )
    time = fields.get("time")
    if time is not None:
        event.time = unix_us("time", time)
    event.metadata.correlation_id = fields.get("correlation_id", "")
    event.metadata.traceparent = fields.get("traceparent", "")
    data = fields.get("data")
    if data is not None:
        _put(event, data)
    return event


def broadcasts(frame: Broadcasts) -> tuple[Broadcast, ...]:
    """What a frame gives to hand out."""
    dropped = (BroadcastsDropped(frame.dropped),) if frame.dropped else ()
    return (*dropped, *[BroadcastEvent(event) for event in frame.events])


def _put(event: NewEvent, data: Message) -> None:
    for field in NewEvent.DESCRIPTOR.oneofs_by_name["data"].fields:
        if field.message_type is data.DESCRIPTOR:
            getattr(event, field.name).CopyFrom(data)
            return
    packed = AnyMessage()
    packed.Pack(data)
    event.other.CopyFrom(packed)
