"""Who wants what, so that an event finds them by look-ups and never meets the others.

A member stands under each key of its filter: every combination of a workspace, a kind and an
entity that the filter names. What an event costs depends on those who get it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from protos.events.v1 import stream_format as fmt
from realtime.filters import USER_KIND, Filter, Key
from realtime.memberships import Memberships

KeyT = TypeVar("KeyT")
MemberT = TypeVar("MemberT")


class Index(Generic[MemberT]):
    """Members by what their filters name."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[MemberT, None]] = {}
        self._by_kind: dict[str | None, dict[MemberT, None]] = {}

    def add(self, wanted: Filter, member: MemberT) -> None:
        """Puts a member under the keys of its filter."""
        for each in wanted.index_keys():
            self._by_key.setdefault(each, {})[member] = None
        for kind in wanted.kinds or (None,):
            self._by_kind.setdefault(kind, {})[member] = None

    def remove(self, wanted: Filter, member: MemberT) -> None:
        """Takes a member out; the filter is the one that it was added with."""
        for each in wanted.index_keys():
            _discard(self._by_key, each, member)
        for kind in wanted.kinds or (None,):
            _discard(self._by_kind, kind, member)

    def find(self, subject: fmt.Subject, memberships: Memberships) -> Iterable[MemberT]:
        """Whose keys fit an event, each once. Those of a user's workspaces get the events of the user."""
        found: dict[MemberT, None] = {}
        kind, entity = subject.kind, subject.entity
        workspaces: list[str | None] = [None, subject.workspace]
        if kind == USER_KIND:
            workspaces.extend(memberships.workspaces_of(entity))
        index = self._by_key
        for workspace in workspaces:
            for key in (
                (workspace, kind, entity),
                (workspace, kind, None),
                (workspace, None, entity),
                (workspace, None, None),
            ):
                bucket = index.get(key)
                if bucket:
                    found.update(bucket)
        return list(found)

    def of_kind(self, kind: str) -> Iterable[MemberT]:
        """Whoever wants anything of a kind, each once."""
        found: dict[MemberT, None] = {}
        for each in (kind, None):
            found.update(self._by_kind.get(each, {}))
        return list(found)


def _discard(index: dict[KeyT, dict[MemberT, None]], key: KeyT, member: MemberT) -> None:
    bucket = index[key]
    del bucket[member]
    if not bucket:
        del index[key]
