"""Events that are to be published, and what must hold for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Required, TypedDict, Unpack

from google.protobuf.message import Message

from protos.events.v1 import publish_pb2 as pb
from protos.models.v1.membership_pb2 import Membership
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from protos.models.v1.workspace_pb2 import Workspace
from realtime.client.start import unix_us
from realtime.errors import ArgumentInvalid


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that is to be published."""

    event: pb.NewEvent
    expectation: pb.Expectation | None = None


class EventFields(TypedDict, total=False):
    """What an event says. The server's rules hold for all of it; docs/publish.md has them."""

    kind: Required[str]
    """Such as ``note``."""
    entity: Required[str]
    """Id of the entity that it is about."""
    verb: Required[str]
    """What happened, such as ``shared``; not one of rows (created, updated, …)."""
    workspace: str
    """UUID of the workspace that routes it; none when it is left out."""
    data: Message | None
    """The model of the kind, or a message of a type that the server's configuration allows."""
    actor: str
    """Who caused it; the caller when it is left out."""
    time: datetime | None
    """When it happened; now when it is left out."""
    correlation_id: str
    traceparent: str


class DraftFields(EventFields, total=False):
    """What an event says, and what must hold for it."""

    expect: int | bytes | None
    """For it to be stored: the version of the entity's events (0: there is none), or the cursor of the last one."""


def draft(**fields: Unpack[DraftFields]) -> Draft:
    """An event that is to be published, from what it says.

    Raises:
        ArgumentInvalid: the time has no zone, or ``expect`` cannot be what it is.
    """
    event = new_event(fields)
    expect = fields.get("expect")
    return Draft(event) if expect is None else Draft(event, _expectation(expect))


def drafted(event: Draft | pb.NewEvent) -> Draft:
    """The same, in whichever form it was given."""
    return event if isinstance(event, Draft) else Draft(event)


def new_event(fields: EventFields) -> pb.NewEvent:
    """The event as it is sent.

    Raises:
        ArgumentInvalid: the time has no zone.
    """
    event = pb.NewEvent(
        workspace_id=fields.get("workspace", "_"),
        kind=fields["kind"],
        entity_id=fields["entity"],
        verb=fields["verb"],
        actor=fields.get("actor", ""),
    )
    if (time := fields.get("time")) is not None:
        event.time = unix_us("time", time)
    if correlation_id := fields.get("correlation_id", ""):
        event.metadata.correlation_id = correlation_id
    if traceparent := fields.get("traceparent", ""):
        event.metadata.traceparent = traceparent
    if (data := fields.get("data")) is not None:
        _put(event, data)
    return event


def _put(event: pb.NewEvent, data: Message) -> None:
    match data:
        case Note():
            event.note.CopyFrom(data)
        case User():
            event.user.CopyFrom(data)
        case Workspace():
            event.workspace.CopyFrom(data)
        case Membership():
            event.membership.CopyFrom(data)
        case _ if data.DESCRIPTOR.full_name == "google.protobuf.Any":
            event.other.MergeFromString(data.SerializeToString())
        case _:
            event.other.Pack(data)


def _expectation(expect: int | bytes) -> pb.Expectation:
    if isinstance(expect, bytes):
        return pb.Expectation(last_cursor=expect)
    if expect < 0:
        raise ArgumentInvalid("expect", f"{expect} is no version", "0 when the entity has no events yet")
    return pb.Expectation(version=expect)
