"""A point of the stream with what was counted up to it."""

from __future__ import annotations

from typing import NamedTuple

from realtime.cursor import Cursor
from realtime.entry import Entry


class Point(NamedTuple):
    """Up to and including ``sequence``: ``stored`` messages, ``internal`` of them marks.

    Counts start anywhere: only the difference of two points of one numbering means something.
    ``transaction_open`` says that the last event's transaction goes on after the point.
    """

    sequence: int
    timestamp_ns: int
    stored: int
    internal: int
    transaction_open: bool

    def after(self, entry: Entry) -> Point:
        """The point right after the next entry."""
        place = entry.commit
        return Point(
            entry.sequence,
            entry.timestamp_ns,
            self.stored + 1,
            self.internal + entry.is_internal,
            self.transaction_open if place is None else place.count == 0,
        )

    def renumbered(self, stored: int, internal: int) -> Point:
        """The same point with its counts moved."""
        return self._replace(stored=self.stored + stored, internal=self.internal + internal)

    def cursor(self, epoch: str) -> Cursor:
        return Cursor(epoch, self.sequence, self.timestamp_ns)


ORIGIN = Point(0, 0, 0, 0, False)
"""Before the first message."""
