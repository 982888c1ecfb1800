"""What of an earlier attempt at the first copy still holds."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.attempt import begin_attempt
from bridge.change import Relation
from bridge.chunks import CopiedTable
from protos.events.v1.snapshot_pb2 import SnapshotMark, TableProgress

NOTES = CopiedTable("public", "notes", Relation(1, "public", "notes", "f", ()), 77, 2000, 10)


def mark(**more: Any) -> SnapshotMark:
    given = {"epoch": "a", "system_id": "7", "timeline": 1, "consistent_lsn": 0x50}
    return SnapshotMark(**{**given, **more})


def earlier(**more: Any) -> bytes:
    progress = TableProgress(table="public.notes", filenode=77, blocks=512, snapshot_xmin=9)
    return mark(**{"consistent_lsn": 0x40, "attempt": 2, "tables": [progress], **more}).SerializeToString()


def test_the_first_one() -> None:
    attempt = begin_attempt(mark(), None, [NOTES])
    assert (attempt.mark.attempt, attempt.earlier) == (1, {})
    assert [part.first for part in attempt.parts([NOTES])] == [0, 512, 1024, 1536]


def test_it_goes_on_from_what_is_stored() -> None:
    attempt = begin_attempt(mark(), earlier(), [NOTES])
    assert attempt.mark.attempt == 3
    assert attempt.earlier["public.notes"].blocks == 512
    # What was copied is read for changes since, the rest whole.
    assert [(part.first, part.changed_since) for part in attempt.parts([NOTES])][:2] == [(0, 9), (512, 0)]


@pytest.mark.parametrize(
    ("more", "number"),
    [
        ({"epoch": "b"}, 1),
        ({"system_id": "8"}, 3),
        ({"timeline": 2}, 3),
        ({"consistent_lsn": 0x60}, 3),
        ({"tables": [TableProgress(table="public.notes", filenode=78, blocks=512)]}, 3),
        ({"tables": [TableProgress(table="public.gone", filenode=77, blocks=512)]}, 3),
    ],
)
def test_nothing_of_it_holds(more: dict[str, Any], number: int) -> None:
    attempt = begin_attempt(mark(), earlier(**more), [NOTES])
    assert (attempt.mark.attempt, attempt.earlier) == (number, {})


def test_a_mark_that_cannot_be_read() -> None:
    assert begin_attempt(mark(), b"\xff", [NOTES]).mark.attempt == 1
