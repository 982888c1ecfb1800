"""Frames that join and frames that do not."""

from __future__ import annotations

import pytest

from protos.events.v1 import stream_pb2 as pb
from realtime.client.coverage import CoverageCheck
from realtime.errors import CoverageBroken


def frame(after: int, through: int, *sequences: int, skipped: int = 0) -> pb.SubscribeResponse:
    result = pb.SubscribeResponse(
        events=pb.Events(events=[pb.StreamedEvent(sequence=sequence) for sequence in sequences])
    )
    coverage = pb.Coverage(after=after, through=through, matched=len(sequences), skipped=skipped)
    result.coverage.CopyFrom(coverage)
    return result


def test_frames_that_join() -> None:
    check = CoverageCheck()
    for each in (frame(7, 7), frame(7, 9, 8), frame(9, 9), frame(9, 20, 10, 12, 20, skipped=8)):
        check.take(each)
    check.take(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring()))
    check.take(frame(20, 21))


@pytest.mark.parametrize(
    "second",
    [
        frame(6, 9),
        frame(8, 9),
        frame(7, 9, 7),
        frame(7, 9, 10),
        frame(7, 9, 9, 8),
        frame(7, 9, 8, 8),
        frame(7, 9, 8, skipped=2),
        frame(7, 6),
    ],
    ids=str,
)
def test_frames_that_do_not(second: pb.SubscribeResponse) -> None:
    check = CoverageCheck()
    check.take(frame(0, 7))
    with pytest.raises(CoverageBroken):
        check.take(second)
    check.take(frame(7, 8, 8))  # the frame that was refused counts for nothing


def test_another_history_may_begin_anywhere() -> None:
    check = CoverageCheck()
    check.take(frame(0, 7))
    check.restart()
    check.take(frame(2, 3))


def test_the_end_of_a_snapshot_counts_its_corrections() -> None:
    check = CoverageCheck()
    check.take(frame(0, 7))
    end = pb.SubscribeResponse(snapshot_end=pb.SnapshotEnd(items=3))
    end.coverage.CopyFrom(pb.Coverage(after=7, through=9, matched=2))
    check.take(end)
