"""A point of the stream with what was counted up to it."""

from __future__ import annotations

from typing import Final

from protos.acyclic import mypyc_attr
from realtime.cursor import Cursor
from realtime.entry import Entry


@mypyc_attr(acyclic=True)
class Point:
    """Up to and including ``sequence``: ``stored`` messages, ``internal`` of them marks.

    Counts start anywhere: only the difference of two points of one numbering means something.
    ``open_lsn`` names the transaction that goes on after the point; 0 when none does. A value:
    never changed. Points of one numbering are ordered by where they stand.
    """

    __slots__ = ("internal", "open_lsn", "sequence", "stored", "timestamp_ns")

    def __init__(self, sequence: int, timestamp_ns: int, stored: int, internal: int, open_lsn: int) -> None:
        self.sequence = sequence
        self.timestamp_ns = timestamp_ns
        self.stored = stored
        self.internal = internal
        self.open_lsn = open_lsn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: Point) -> bool:
        return self._key() < other._key()

    def __gt__(self, other: Point) -> bool:
        return self._key() > other._key()

    def __repr__(self) -> str:
        return f"Point{self._key()!r}"

    def after(self, entry: Entry) -> Point:
        """The point right after the next entry."""
        place = entry.commit
        if place is not None:
            still_open = 0 if place.count else place.lsn
        else:
            still_open = 0 if entry.stands_alone else self.open_lsn
        return Point(
            entry.sequence,
            entry.timestamp_ns,
            self.stored + 1,
            self.internal + 1 if entry.subject is None else self.internal,
            still_open,
        )

    def renumbered(self, stored: int, internal: int) -> Point:
        """The same point with its counts moved."""
        return Point(
            self.sequence, self.timestamp_ns, self.stored + stored, self.internal + internal, self.open_lsn
        )

    def moved(self, sequence: int, timestamp_ns: int) -> Point:
        """The same counts at another place, when no message stands between."""
        return Point(sequence, timestamp_ns, self.stored, self.internal, self.open_lsn)

    def cursor(self, epoch: str) -> Cursor:
        return Cursor(epoch, self.sequence, self.timestamp_ns)

    def _key(self) -> tuple[int, int, int, int, int]:
        return self.sequence, self.timestamp_ns, self.stored, self.internal, self.open_lsn


ORIGIN: Final = Point(0, 0, 0, 0, 0)
"""Before the first message."""
