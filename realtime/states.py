"""Where a snapshot reads the present state of entities: what such a source promises.

States come in pages, each as of its own moment: a later page may see newer states than an
earlier one. What holds the whole together is two positions. What was committed before
``settle`` was called is seen by every page after it, and ``position`` gives a place of the
source's log at or past everything that was read, so that the changes in between correct it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from protos.events.v1.event_pb2 import Event
from realtime.filters import Filter

PAGE_ITEMS = 500
PAGE_BYTES = 256 * 1024
"""Bounds of one page, soft by one entity."""


@dataclass(frozen=True)
class StatePage:
    """Events of the verb ``read``, or ``rejected`` for a state that cannot be an event. ``after`` is what the
    next page is asked for with; None when there is none. It may be shared: nobody changes it."""

    events: Sequence[Event]
    after: str | None

    @cached_property
    def encoded(self) -> Sequence[bytes]:
        """The events' bytes, made once."""
        return [event.SerializeToString() for event in self.events]


class States(Protocol):
    """The present state of all entities of ``kinds``. Every method may raise Unavailable."""

    @property
    def kinds(self) -> Sequence[str]:
        """Which kinds it knows, in the order in which they are read."""

    async def settle(self) -> None:
        """Returns once all that was committed before the call is visible to the reads that follow."""

    async def page(self, kind: str, wanted: Filter, after: str = "") -> StatePage:
        """The states of a kind that a filter admits, in an order of its own. A user is admitted
        to the workspaces that it is a member of; an entity of several may come more than once."""

    async def users(self, ids: Collection[str]) -> StatePage:
        """The states of some users, at most ``PAGE_ITEMS`` of them; of those that exist."""

    async def position(self) -> int:
        """A WAL position past every commit that the reads before can have seen. The bridge was asked to mark
        it in the stream soon."""
