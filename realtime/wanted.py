"""What a list wants: the filter that subscriptions have, and verbs and changed fields."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Filter as FilterMessage
from realtime.entry import Entry
from realtime.errors import ArgumentInvalid
from realtime.filters import Filter, compile_filter
from realtime.memberships import Memberships


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty sets admit all."""

    filter: Filter
    verbs: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()

    @property
    def is_narrow(self) -> bool:
        """Whether it may leave out an event."""
        return self != Wanted(Filter())

    def matches(self, entry: Entry, memberships: Memberships) -> bool:
        """Whether the entry is wanted. A truncation is, whatever the verbs."""
        if not self.filter.matches(entry, memberships):
            return False
        if self.verbs and entry.verb not in self.verbs and entry.verb != fmt.TRUNCATED:
            return False
        if not self.changed or entry.verb != fmt.UPDATED:
            return True
        try:
            return not self.changed.isdisjoint(Event.FromString(entry.payload).changed)
        except DecodeError:
            return True


def compile_wanted(message: FilterMessage, kinds: Collection[str]) -> Wanted:
    """Checks a filter as it came from a client; ``kinds`` are those that exist.

    Raises:
        ArgumentInvalid: a part of it is malformed; LimitExceeded: it is too large.
    """
    for field, names in (("verbs", message.verbs), ("changed_fields", message.changed_fields)):
        for index, name in enumerate(names):
            if not fmt.is_token(name):
                raise ArgumentInvalid(
                    f"filter.{field}[{index}]", f"{name!r} is no name", "use letters, digits, - and _"
                )
    return Wanted(compile_filter(message, kinds), frozenset(message.verbs), frozenset(message.changed_fields))
