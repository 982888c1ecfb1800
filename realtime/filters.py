"""What a subscription wants, compiled once.

A filter is the product of three lists; an empty one admits all. Its keys go into the hub's
index, so that an event finds its subscriptions by look-ups and never meets the others.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from protos.events.v1 import stream_format as fmt
from protos.events.v1.stream_pb2 import Filter as FilterMessage
from realtime.entry import Entry
from realtime.errors import ArgumentInvalid, LimitExceeded
from realtime.memberships import Memberships

Key = tuple[str | None, str | None, str | None]
"""Workspace, kind, entity; None admits all."""

USER_KIND = "user"
_MAX_KEYS = 1000
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty sets admit all."""

    workspaces: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    entities: frozenset[str] = frozenset()

    def matches(self, entry: Entry, memberships: Memberships) -> bool:
        """Whether a subscription with this filter gets the entry."""
        subject = entry.subject
        if subject is None or (self.kinds and subject.kind not in self.kinds):
            return False
        if entry.verb == fmt.TRUNCATED:
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
        ArgumentInvalid: a malformed UUID, an unknown kind, an id that cannot be one.
        LimitExceeded: the product of the lists has more than 1000 members.
    """
    for index, kind in enumerate(message.kinds):
        if kind not in kinds:
            raise ArgumentInvalid(
                f"filter.kinds[{index}]", f"unknown kind {kind!r}", f"use one of: {', '.join(sorted(kinds))}"
            )
    for index, entity in enumerate(message.entity_ids):
        if not fmt.is_token(entity) or entity == fmt.NONE:
            raise ArgumentInvalid(f"filter.entity_ids[{index}]", f"{entity!r} is no id of an entity")
    result = Filter(
        frozenset(
            parse_uuid(f"filter.workspace_ids[{index}]", text)
            for index, text in enumerate(message.workspace_ids)
        ),
        frozenset(message.kinds),
        frozenset(_canonical(entity) for entity in message.entity_ids),
    )
    size = max(1, len(result.workspaces)) * max(1, len(result.kinds)) * max(1, len(result.entities))
    if size > _MAX_KEYS:
        raise LimitExceeded(
            f"the filter has {size} combinations of workspace, kind and entity, at most {_MAX_KEYS} are possible",
            "open several subscriptions on the stream",
        )
    return result


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
