"""The events that are published: notes of one workspace, of a size, about a thousand entities in turn."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from protos.events.v1.publish_pb2 import NewEvent

ENTITIES = 1000
"""So many subjects: the broker counts what it stored by them."""
VERB = "shared"


def new_event(workspace: str, number: int, size: int) -> NewEvent:
    """An event of ``size`` bytes, or of as few as it takes."""
    event = NewEvent(workspace_id=workspace, kind="note", entity_id=entity(number), verb=VERB)
    event.note.title = "x"
    event.note.title = "x" * max(1, 1 + size - event.ByteSize())
    # The lengths of note and title may have grown by a byte each.
    event.note.title = event.note.title[max(0, event.ByteSize() - size) :]
    return event


def entity(number: int) -> str:
    """Whom the event of a number is about."""
    return f"00000000-0000-4000-8000-{number % ENTITIES:012}"


def subject(workspace: str, number: int) -> str:
    """Where it is stored."""
    return f"{fmt.ROOT}.{fmt.SHARD}.{workspace}.note.{entity(number)}.event"


def event_subjects(workspace: str) -> str:
    """Where all of them are stored."""
    return f"{fmt.ROOT}.{fmt.SHARD}.{workspace}.note.*.event"
