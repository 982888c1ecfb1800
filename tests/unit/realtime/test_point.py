"""Points count what stands before them, and know the transaction that goes on."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from realtime.cursor import Cursor
from realtime.entry import Entry
from realtime.point import ORIGIN, Point


def entry(sequence: int, commit: fmt.CommitPlace | None = None, *, internal: bool = False) -> Entry:
    subject = None if internal else fmt.Subject("w", "note", "n")
    return Entry(sequence, sequence * 10, subject, "made", commit, b"", b"")


def test_it_counts_messages_and_marks() -> None:
    point = ORIGIN.after(entry(3)).after(entry(5, internal=True)).after(entry(9))
    assert (point.sequence, point.timestamp_ns, point.stored, point.internal) == (9, 90, 3, 1)
    moved = point.renumbered(10, 2)
    assert (moved.stored, moved.internal) == (13, 3)
    assert moved == Point(9, 90, 13, 3, 0)
    assert moved > point
    assert point < moved
    assert len({moved, point, point.renumbered(0, 0)}) == 2
    assert moved.moved(10, 100) == Point(10, 100, 13, 3, 0)
    assert point.cursor("0190a0000000000000aa") == Cursor("0190a0000000000000aa", 9, 90)


def test_a_transaction_is_open_until_its_last_message_whatever_comes_between() -> None:
    point = ORIGIN.after(entry(1, fmt.CommitPlace(7, 0)))
    assert point.open_lsn == 7
    point = point.after(entry(2, internal=True)).after(entry(3))
    assert point.open_lsn == 7
    assert point.after(entry(4, fmt.CommitPlace(7, 1, 2))).open_lsn == 0
