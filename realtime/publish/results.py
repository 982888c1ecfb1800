"""What a producer was given lately: which of its sequences stand where in the stream. No I/O.

What a batch stored stands together and in order, so a batch is one run, whatever its size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

KEPT = 1000
"""So many of the last results are given again."""


class Run:
    """One batch: the producer's sequences, and where the first of them stands. Its mark stands behind the last."""

    __slots__ = ("first", "sequences")

    def __init__(self, sequences: Sequence[int], first: int) -> None:
        self.sequences = sequences
        self.first = first

    @property
    def mark(self) -> int:
        """Where the batch's mark stands."""
        return self.first + len(self.sequences)


class Results:
    """The last runs, as many as the last ``KEPT`` results need."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._size = 0

    def add(self, sequences: Sequence[int], first: int) -> None:
        """A batch was stored: ``first`` is where its first event stands."""
        if not sequences:
            return
        self._runs.append(Run(compact(sequences), first))
        self._size += len(sequences)
        while self._size - len(self._runs[0].sequences) >= KEPT:
            self._size -= len(self._runs.popleft().sequences)

    def find(self, sequence: int) -> int:
        """Where the event of a sequence stands; 0 when that is not among these."""
        if sequence < self.oldest:
            return 0
        for run in reversed(self._runs):
            if sequence > run.sequences[-1]:
                return 0
            if sequence >= run.sequences[0]:
                at = bisect_left(run.sequences, sequence)
                return run.first + at if run.sequences[at] == sequence else 0
        return 0

    @property
    def oldest(self) -> int:
        """The least sequence that is known; 0 when none is. What lies above it and is not found was not stored."""
        return self._runs[0].sequences[max(0, self._size - KEPT)] if self._runs else 0

    def since(self, adding: int = 0) -> int:
        """Where the oldest mark stands that is still needed once ``adding`` results are added; 0: none is."""
        size = self._size + adding
        for run in self._runs:
            size -= len(run.sequences)
            if size < KEPT:
                return run.mark
        return 0


def compact(sequences: Sequence[int]) -> Sequence[int]:
    """The same sequences, as a range where none is missing."""
    first, last = sequences[0], sequences[-1]
    return range(first, last + 1) if last - first + 1 == len(sequences) else list(sequences)
