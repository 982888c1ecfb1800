"""The stream replayed into a table: the last word of the stream on every entity.

``created``, ``updated`` and ``entered`` set an entity's state, ``deleted`` removes it,
``truncated`` removes all of its kind, and ``left`` says nothing here, since ``entered`` follows it.
A state is a tuple of plain values in the order of ``FIELDS``, the same as a row of the database is
read into, long texts as their digest: what is held grows with the entities, not with their texts.
"""

from __future__ import annotations

import hashlib
from typing import Final

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.membership_pb2 import Membership
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from protos.models.v1.workspace_pb2 import Workspace
from zephyr.demo.sql import LONG_TEXT

Model = Workspace | User | Membership | Note
State = tuple[object, ...]

_COMMON = ("metadata", "version", "created_at", "updated_at")
FIELDS: Final = {
    "workspace": ("slug", "name", *_COMMON),
    "user": ("email", "display_name", *_COMMON),
    "membership": ("workspace_id", "user_id", "role", *_COMMON),
    "note": ("workspace_id", "author_id", "title", "body", *_COMMON),
}


class Fold:
    """Entities by kind and id. ``last_sequence`` is the last message of each kind, in the stream."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, State]] = {kind: {} for kind in FIELDS}
        self.deleted: dict[str, set[str]] = {kind: set() for kind in FIELDS}
        self.last_sequence: dict[str, int] = dict.fromkeys(FIELDS, 0)
        self.messages = 0

    def take(self, sequence: int, subject: str, verb: str, payload: bytes) -> None:
        """Takes in one ``row`` message. Kinds that the demo's tables do not have are passed over.

        Raises:
            ValueError: the message is not of the stream's format.
        """
        place = fmt.parse_subject(subject)
        self.messages += 1
        if place is None or place.kind not in FIELDS:
            return
        states, deleted = self.states[place.kind], self.deleted[place.kind]
        self.last_sequence[place.kind] = sequence
        if verb in fmt.STATES:
            model: Model = getattr(Event.FromString(payload), place.kind)
            states[place.entity] = state_of(place.kind, model)
            deleted.discard(place.entity)
        elif verb == fmt.DELETED:
            states.pop(place.entity, None)
            deleted.add(place.entity)
        elif verb == fmt.TRUNCATED:
            deleted.update(states)
            states.clear()
        elif verb != fmt.LEFT:
            raise ValueError(f"no verb of a row: {verb!r}")


def state_of(kind: str, model: Model) -> State:
    """A model's fields in the order of ``FIELDS``."""
    return tuple(_plain(name, getattr(model, name)) for name in FIELDS[kind])


def _plain(name: str, value: object) -> object:
    if name == "metadata":
        return dict(value)  # type: ignore[call-overload]
    if name == "body" and isinstance(value, str) and len(value) > LONG_TEXT:
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    return value
