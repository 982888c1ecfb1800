"""Who wants what, so that an event finds them by look-ups and never meets the others.

A member stands under each key of its filter: every combination of a workspace, a kind and an
entity that the filter names. What an event costs depends on those who get it alone. Where no filter names an entity,
workspace and kind alone decide: what was found for them is remembered, until a member comes or goes.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from protos.events.v1 import stream_format as fmt
from realtime.filters import USER_KIND, Filter, Key
from realtime.memberships import Memberships

KeyT = TypeVar("KeyT")
MemberT = TypeVar("MemberT")

_MOST_FOUND: Final = 4096
"""Pairs of workspace and kind whose members are remembered."""


class Index(Generic[MemberT]):
    """Members by what their filters name."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[MemberT, None]] = {}
        self._by_kind: dict[str | None, dict[MemberT, None]] = {}
        self._found: dict[tuple[str, str], list[MemberT]] = {}
        self._keys_of_entities = 0

    def __len__(self) -> int:
        """How many keys and kinds lead to a member."""
        return len(self._by_key) + len(self._by_kind)

    def add(self, wanted: Filter, member: MemberT) -> None:
        """Puts a member under the keys of its filter."""
        self._found.clear()
        for key in wanted.index_keys():
            self._by_key.setdefault(key, {})[member] = None
            self._keys_of_entities += key[2] is not None
        for kind in wanted.kinds or (None,):
            self._by_kind.setdefault(kind, {})[member] = None

    def remove(self, wanted: Filter, member: MemberT) -> None:
        """Takes a member out; the filter is the one that it was added with."""
        self._found.clear()
        for key in wanted.index_keys():
            _discard(self._by_key, key, member)
            self._keys_of_entities -= key[2] is not None
        for kind in wanted.kinds or (None,):
            _discard(self._by_kind, kind, member)

    def find(self, subject: fmt.Subject, memberships: Memberships) -> list[MemberT]:
        """Whose keys fit an event, each once. Those of a user's workspaces get the events of the user. Not to be
        changed: it may be given again."""
        kind = subject.kind
        if self._keys_of_entities or kind == USER_KIND:
            return self._search(subject, memberships)
        key = (subject.workspace, kind)
        found = self._found.get(key)
        if found is None:
            found = self._search(subject, memberships)
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[key] = found
        return found

    def of_kind(self, kind: str) -> list[MemberT]:
        """Whoever wants anything of a kind, each once."""
        found: dict[MemberT, None] = {}
        for each in (kind, None):
            found.update(self._by_kind.get(each, {}))
        return list(found)

    def _search(self, subject: fmt.Subject, memberships: Memberships) -> list[MemberT]:
        found: dict[MemberT, None] = {}
        kind, entity = subject.kind, subject.entity
        workspaces: list[str | None] = [None, subject.workspace]
        if kind == USER_KIND:
            workspaces.extend(memberships.workspaces_of(entity))
        for workspace in workspaces:
            for key in (
                (workspace, kind, entity),
                (workspace, kind, None),
                (workspace, None, entity),
                (workspace, None, None),
            ):
                bucket = self._by_key.get(key)
                if bucket:
                    found.update(bucket)
        return list(found)


def _discard(index: dict[KeyT, dict[MemberT, None]], key: KeyT, member: MemberT) -> None:
    bucket = index[key]
    del bucket[member]
    if not bucket:
        del index[key]
