"""What a subscription wants, compiled once.

A filter is the product of its lists; an empty one admits all. Workspaces, kinds and entities
make the keys of the hub's index, so that an event finds its subscriptions by look-ups and
never meets the others. Verbs and changed fields are asked of those alone that a key found.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Filter as FilterMessage
from realtime.entry import Entry
from realtime.errors import ArgumentInvalid, LimitExceeded
from realtime.memberships import Memberships

Key = tuple[str | None, str | None, str | None]
"""Workspace, kind, entity; None admits all."""

USER_KIND = "user"
_MAX_KEYS = 1000
_MAX_VERBS = 100
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_VERB = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
"""Of rows and of the domain: as it is written in an event's type."""
_FIELDS = frozenset(
    field.name
    for model in Event.DESCRIPTOR.oneofs_by_name["data"].fields
    if model.name not in ("other", "rejected")
    for field in (model.message_type.fields if model.message_type is not None else ())
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty sets admit all."""

    workspaces: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    entities: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()

    @property
    def is_selective(self) -> bool:
        """Whether ``admits`` has to be asked."""
        return bool(self.verbs or self.changed)

    def matches(self, entry: Entry, memberships: Memberships) -> bool:
        """Whether a subscription with this filter gets the entry."""
        return self.covers(entry, memberships) and self.admits(entry)

    def admits(self, entry: Entry) -> bool:
        """What the keys do not say: whether the verb is wanted, and of an update what it changed."""
        verb = entry.verb
        if entry.is_truncation:
            return True
        if self.verbs and verb not in self.verbs:
            return False
        return not self.changed or verb != fmt.UPDATED or not self.changed.isdisjoint(entry.changed)

    def covers(self, entry: Entry, memberships: Memberships) -> bool:
        """What the keys say: whether the entry's workspace, kind and entity are wanted."""
        subject = entry.subject
        if subject is None or (self.kinds and subject.kind not in self.kinds):
            return False
        if entry.is_truncation:
            return True
        if self.entities and subject.entity not in self.entities:
            return False
        if not self.workspaces or subject.workspace in self.workspaces:
            return True
        return subject.kind == USER_KIND and any(
            memberships.includes(workspace, subject.entity, entry.sequence) for workspace in self.workspaces
        )

    def index_keys(self) -> Iterator[Key]:
        """What the hub indexes the subscription by."""
        for workspace in self.workspaces or (None,):
            for kind in self.kinds or (None,):
                for entity in self.entities or (None,):
                    yield workspace, kind, entity


def compile_filter(message: FilterMessage, kinds: Collection[str]) -> Filter:
    """Checks a filter as it came from a client; ``kinds`` are those that exist.

    Raises:
        ArgumentInvalid: a malformed UUID, an unknown kind or field, an id or a verb that cannot be one.
        LimitExceeded: a list, or the product of the lists, has more than 1000 members.
    """
    _check_lengths(message)
    for index, kind in enumerate(message.kinds):
        if kind not in kinds:
            raise ArgumentInvalid(
                f"filter.kinds[{index}]", f"unknown kind {kind!r}", f"use one of: {', '.join(sorted(kinds))}"
            )
    for index, entity in enumerate(message.entity_ids):
        if not fmt.is_token(entity) or entity == fmt.NONE:
            raise ArgumentInvalid(f"filter.entity_ids[{index}]", f"{entity!r} is no id of an entity")
    for index, verb in enumerate(message.verbs):
        if verb not in fmt.ROW_VERBS and _VERB.fullmatch(verb) is None:
            raise ArgumentInvalid(
                f"filter.verbs[{index}]",
                f"{verb!r} is no verb",
                f"use some of: {', '.join(fmt.ROW_VERBS)}, or a verb of your own events in lower case",
            )
    for index, name in enumerate(message.changed_fields):
        if name not in _FIELDS:
            raise ArgumentInvalid(
                f"filter.changed_fields[{index}]",
                f"no model has a field {name!r}",
                f"use some of: {', '.join(sorted(_FIELDS))}",
            )
    result = Filter(
        frozenset(
            parse_uuid(f"filter.workspace_ids[{index}]", text)
            for index, text in enumerate(message.workspace_ids)
        ),
        frozenset(message.kinds),
        frozenset(_canonical(entity) for entity in message.entity_ids),
        frozenset(message.verbs),
        frozenset(message.changed_fields),
    )
    check_size(result)
    return result


def check_size(wanted: Filter) -> None:
    """Bounds what the hub's index holds for one filter.

    Raises:
        LimitExceeded: the product of the lists has more than 1000 members.
    """
    size = max(1, len(wanted.workspaces)) * max(1, len(wanted.kinds)) * max(1, len(wanted.entities))
    if size > _MAX_KEYS:
        raise LimitExceeded(
            f"the filter has {size} combinations of workspace, kind and entity, at most {_MAX_KEYS} are possible",
            "open several subscriptions on the stream",
        )


def _check_lengths(message: FilterMessage) -> None:
    """Before any member is looked at: a request of a megabyte must not hold up the others."""
    for name, values, most in (
        ("workspace_ids", message.workspace_ids, _MAX_KEYS),
        ("kinds", message.kinds, _MAX_KEYS),
        ("entity_ids", message.entity_ids, _MAX_KEYS),
        ("verbs", message.verbs, _MAX_VERBS),
        ("changed_fields", message.changed_fields, _MAX_VERBS),
    ):
        if len(values) > most:
            raise LimitExceeded(
                f"filter.{name} has {len(values)} members, at most {most} are possible",
                "open several subscriptions on the stream",
            )


def parse_uuid(field: str, text: str) -> str:
    """A UUID in its canonical form.

    Raises:
        ArgumentInvalid: it is none.
    """
    if _UUID.fullmatch(text) is None:  # uuid.UUID itself takes "0x…", "urn:uuid:…" and the like
        raise ArgumentInvalid(field, f"{text!r} is no UUID", "write it as 8-4-4-4-12 hexadecimal digits")
    return str(uuid.UUID(text))


def _canonical(entity: str) -> str:
    return entity.lower() if _UUID.fullmatch(entity) else entity
