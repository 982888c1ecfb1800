"""The ring: the newest entries of the stream, ready to be sent, bounded by number and bytes.

A subscription that is behind by less than the ring reads from here and never asks the
broker. Entries are numbered by their points' ``stored`` count, so that a place is found by
bisection though sequences have holes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from realtime.entry import Entry
from realtime.point import Point

Item = tuple[Entry, Point]
"""An entry and the point right after it."""


class History:
    """Entries after ``floor``. What is older must be read from the stream."""

    def __init__(self, floor: Point, max_entries: int, max_bytes: int) -> None:
        self.floor = floor
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self.dropped = 0
        """How many entries went since the beginning, and how many bytes."""
        self.dropped_bytes = 0

    def append(self, entry: Entry, point: Point) -> None:
        """Adds the newest entry; the oldest go when a bound is passed."""
        self._items.append((entry, point))
        self._bytes += len(entry.frame)
        while len(self._items) > self._max_entries or self._bytes > self._max_bytes:
            oldest, self.floor = self._items.popleft()
            size = len(oldest.frame)
            self._bytes -= size
            self.dropped += 1
            self.dropped_bytes += size

    def read(self, after: int, through: int, limit: int) -> list[Item] | None:
        """Up to ``limit`` items with ``after`` < sequence <= ``through``; None when ``after`` is below the floor."""
        start = self._index(after)
        if start is None:
            return None
        items = []
        for index in range(start, min(start + limit, len(self._items))):
            item = self._items[index]
            if item[0].sequence > through:
                break
            items.append(item)
        return items

    def point_at(self, sequence: int) -> Point | None:
        """The point of the last entry at or before ``sequence``; None when that is below the floor."""
        index = self._index(sequence)
        if index is None:
            return None
        return self._items[index - 1][1] if index else self.floor

    def _index(self, after: int) -> int | None:
        """How many items stand at or before ``after``."""
        if after < self.floor.sequence:
            return None
        return bisect_right(self._items, after, key=_sequence)

    def __len__(self) -> int:
        return len(self._items)


def _sequence(item: Item) -> int:
    return item[0].sequence
