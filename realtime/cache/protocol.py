"""What a cache of latest states promises, whatever keeps it.

A state stands at a position of the stream, (epoch, sequence). Epochs sort by time, so
positions compare, and an older state never replaces a newer one, whoever writes it and
in whatever order. The watermark says that everything up to it was written; it lives and
dies with the states, so a cache that was lost is seen as empty and never as complete.

A read has three answers: a state, a state that says the entity is gone, or None, which
says nothing: ask Postgres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from realtime.cursor import Cursor

TOMBSTONE_TTL_S = 24 * 60 * 60
"""How long a deleted entity is remembered as gone, in seconds."""


@dataclass(frozen=True, slots=True)
class Put:
    """The state of one entity at ``cursor``: the bytes of its model, None when it was deleted."""

    kind: str
    entity_id: str
    cursor: Cursor
    model: bytes | None


@dataclass(frozen=True, slots=True)
class Forget:
    """What is held of one entity from before ``cursor`` is no longer its state, and the new one is not known."""

    kind: str
    entity_id: str
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Clear:
    """All entities of a kind were gone at ``cursor``."""

    kind: str
    cursor: Cursor


Write = Put | Forget | Clear


@dataclass(frozen=True, slots=True)
class Cached:
    """What is known of an entity.

    ``model`` is the bytes of its model, None when the entity is gone. ``cursor`` is where
    that stands in the stream, None for a state that was filled from Postgres.
    """

    model: bytes | None
    cursor: Cursor | None


class Cache(Protocol):
    """Latest states by kind and id. Every method may raise StoreUnavailable."""

    async def get(self, kind: str, entity_id: str) -> Cached | None:
        """What is known of an entity; None when nothing is."""

    async def fill(self, kind: str, entity_id: str, model: bytes, ttl_s: float) -> bool:
        """Keeps a state that was read from Postgres for ``ttl_s`` seconds, where nothing is known.

        The projector overwrites it. Gives whether it was kept.
        """

    async def apply(
        self, writes: Sequence[Write], after: Cursor | None = None, through: Cursor | None = None
    ) -> bool:
        """Writes what the stream says in (after, through], then moves the watermark to ``through``.

        ``after`` None is the beginning of the stream; ``through`` None leaves the watermark.
        What stands at or before the watermark was written already and is skipped.

        False when the watermark does not reach ``after``: the cache was lost since. The
        watermark stays, and the writer has to go on after it, or from the beginning.
        """

    async def watermark(self) -> Cursor | None:
        """Everything up to here was written; None when nothing is known to be."""

    async def reset(self, watermark: Cursor | None) -> None:
        """Forgets everything, if the watermark still is ``watermark``.

        For a history that cannot be read on from there: states that it would have
        changed must not stay. The condition lets one of several writers do it.
        """

    async def close(self) -> None:
        """Gives back what the cache opened."""


def place_of(cursor: Cursor) -> str:
    """The position as text that sorts as (epoch, sequence) does: 20 and 16 hexadecimal digits."""
    return f"{cursor.epoch.lower()}{cursor.sequence:016x}"
