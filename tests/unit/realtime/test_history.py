"""The ring: what it holds, what it lets go of, and where it finds a place."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from realtime.entry import Entry
from realtime.history import History
from realtime.point import Point

FLOOR = Point(10, 1, 100, 5, 0)


def filled(sequences: list[int], max_entries: int = 100, max_bytes: int = 10_000, size: int = 10) -> History:
    history = History(FLOOR, max_entries, max_bytes)
    point = FLOOR
    for sequence in sequences:
        entry = Entry(sequence, sequence, fmt.Subject("w", "note", "n"), "made", None, b"", b"x" * size)
        point = point.after(entry)
        history.append(entry, point)
    return history


def read(history: History, after: int, through: int = 1000, limit: int = 100) -> list[int] | None:
    items = history.read(after, through, limit)
    return None if items is None else [entry.sequence for entry, _ in items]


def test_reading_is_exclusive_inclusive_and_limited() -> None:
    history = filled([11, 12, 13, 14])
    assert read(history, 10) == [11, 12, 13, 14]
    assert read(history, 11, 13) == [12, 13]
    assert read(history, 10, limit=2) == [11, 12]
    assert read(history, 14) == []
    assert read(history, 9) is None


def test_holes_are_stepped_over() -> None:
    history = filled([12, 20, 21])
    assert read(history, 10) == read(history, 11) == [12, 20, 21]
    assert read(history, 15) == [20, 21]
    here = history.point_at(15)
    assert here is not None
    assert (here.sequence, here.stored) == (12, 101)
    assert history.point_at(11) == FLOOR
    assert history.point_at(9) is None


def test_the_number_is_bounded_and_the_floor_moves() -> None:
    history = filled(list(range(11, 31)), max_entries=4)
    assert len(history) == 4
    assert read(history, 26) == [27, 28, 29, 30]
    assert read(history, 25) is None
    assert history.floor.stored == 116


def test_the_bytes_are_bounded() -> None:
    assert len(filled(list(range(11, 31)), max_bytes=50)) == 5
    one_too_large = filled([11, 12], max_bytes=5)
    assert len(one_too_large) == 0
    assert one_too_large.floor.sequence == 12
    assert read(one_too_large, 12) == []
