"""Whether frames join: each accounts for the stream from where the one before ended."""

from __future__ import annotations

from protos.events.v1 import stream_pb2 as pb
from realtime.errors import CoverageBroken


class CoverageCheck:
    """The frames of one subscription on one connection."""

    def __init__(self) -> None:
        self._through: int | None = None

    def take(self, frame: pb.SubscribeResponse) -> None:
        """Checks the next frame. One without coverage concerns no part of the stream.

        Raises:
            CoverageBroken: it does not begin where the one before ended, or has other events than it says.
        """
        if not frame.HasField("coverage"):
            return
        coverage = frame.coverage
        after, through = coverage.after, coverage.through
        if self._through is not None and after != self._through:
            raise CoverageBroken(f"a frame begins after {after}, the one before ended at {self._through}")
        sequences = [item.sequence for item in frame.events.events]
        # At the end of a snapshot those that matched were among its corrections.
        if coverage.matched != len(sequences) and not frame.HasField("snapshot_end"):
            raise CoverageBroken(f"a frame says {coverage.matched} events and has {len(sequences)}")
        if coverage.matched + coverage.skipped + coverage.internal > through - after:
            raise CoverageBroken(f"a frame from {after} to {through} says that more messages are in it")
        if sequences and not (
            after < sequences[0] and sequences[-1] <= through and sequences == sorted(set(sequences))
        ):
            raise CoverageBroken(f"events {sequences} do not ascend from {after} to {through}")
        self._through = through

    def restart(self) -> None:
        """The next frame may begin anywhere: the position was reset."""
        self._through = None
