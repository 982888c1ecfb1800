"""A point of the stream with what was counted up to it."""

from __future__ import annotations

from typing import NamedTuple

from realtime.cursor import Cursor
from realtime.entry import Entry


class Point(NamedTuple):
    """Up to and including ``sequence``: ``stored`` messages, ``internal`` of them marks.

    Counts start anywhere: only the difference of two points of one numbering means something.
    ``open_lsn`` names the transaction that goes on after the point; 0 when none does.
    """

    sequence: int
    timestamp_ns: int
    stored: int
    internal: int
    open_lsn: int

    def after(self, entry: Entry) -> Point:
        """The point right after the next entry."""
        place = entry.commit
        still_open = 0 if entry.stands_alone else self.open_lsn
        return Point(
            entry.sequence,
            entry.timestamp_ns,
            self.stored + 1,
            self.internal + entry.is_internal,
            still_open if place is None else 0 if place.count else place.lsn,
        )

    def renumbered(self, stored: int, internal: int) -> Point:
        """The same point with its counts moved."""
        return self._replace(stored=self.stored + stored, internal=self.internal + internal)

    def cursor(self, epoch: str) -> Cursor:
        return Cursor(epoch, self.sequence, self.timestamp_ns)


ORIGIN = Point(0, 0, 0, 0, 0)
"""Before the first message."""
