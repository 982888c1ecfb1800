"""Which lanes an event belongs to: the work depends on those that match alone, and not on the others.

A filter's workspaces, kinds and entities make the keys that its lane is found by. Where no filter
names an entity, workspace and kind alone decide: what was found for them is remembered, until a
lane comes or goes.
"""

from __future__ import annotations

from typing import Final, TypeVar

from protos.events.v1 import stream_format as fmt
from realtime.entry import Entry
from realtime.filters import USER_KIND, Key
from realtime.lane import Lane
from realtime.memberships import Memberships

KeyT = TypeVar("KeyT")

_MOST_FOUND: Final = 4096
"""Pairs of workspace and kind whose lanes are remembered."""


class LaneIndex:
    """The lanes of a hub, by what their filters want."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[Lane, None]] = {}
        self._by_kind: dict[str | None, dict[Lane, None]] = {}
        self._found: dict[tuple[str, str], list[Lane]] = {}
        self._keys_of_entities = 0

    def __len__(self) -> int:
        """How many keys and kinds lead to a lane."""
        return len(self._by_key) + len(self._by_kind)

    def add(self, lane: Lane) -> None:
        """Finds a lane from now on."""
        self._found.clear()
        for key in lane.filter.index_keys():
            self._by_key.setdefault(key, {})[lane] = None
            self._keys_of_entities += key[2] is not None
        for kind in lane.filter.kinds or (None,):
            self._by_kind.setdefault(kind, {})[lane] = None

    def discard(self, lane: Lane) -> None:
        """Does not find it any more."""
        self._found.clear()
        for key in lane.filter.index_keys():
            _discard(self._by_key, key, lane)
            self._keys_of_entities -= key[2] is not None
        for kind in lane.filter.kinds or (None,):
            _discard(self._by_kind, kind, lane)

    def lanes_of(self, entry: Entry, subject: fmt.Subject, memberships: Memberships) -> list[Lane]:
        """Which lanes get the entry, each once. Not to be changed: it may be given again."""
        if entry.is_truncation:
            every: dict[Lane, None] = {}
            for each in (subject.kind, None):
                every.update(self._by_kind.get(each, {}))
            return list(every)
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

    def _search(self, subject: fmt.Subject, memberships: Memberships) -> list[Lane]:
        found: dict[Lane, None] = {}
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


def _discard(index: dict[KeyT, dict[Lane, None]], key: KeyT, lane: Lane) -> None:
    bucket = index[key]
    del bucket[lane]
    if not bucket:
        del index[key]
