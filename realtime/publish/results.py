"""What a producer was given lately: which of its sequences stand where in the stream. No I/O.

Kept as numbers, 16 bytes a result, since a server knows thousands of producers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

KEPT = 1000
"""So many of the last results are given again."""
_TRIM = 3 * KEPT


class Results:
    """The last ``KEPT`` results. A batch's events stand together, and its mark right behind them."""

    def __init__(self) -> None:
        self._sequences = array("Q")
        self._places = array("Q")

    def add(self, sequences: Sequence[int], first: int) -> None:
        """A batch was stored: ``first`` is where its first event stands."""
        self._sequences.extend(sequences)
        self._places.extend(range(first, first + len(sequences)))
        if len(self._sequences) > _TRIM:
            del self._sequences[:-KEPT]
            del self._places[:-KEPT]

    def find(self, sequence: int) -> int:
        """Where the event of a sequence stands; 0 when that is not among these."""
        at = bisect_left(self._sequences, sequence, self._first())
        if at == len(self._sequences) or self._sequences[at] != sequence:
            return 0
        return self._places[at]

    @property
    def oldest(self) -> int:
        """The least sequence that is known; 0 when none is. What lies above it and is not found was not stored."""
        return self._sequences[self._first()] if self._sequences else 0

    def since(self, adding: int = 0) -> int:
        """Where the oldest mark stands that is still needed once ``adding`` results are added; 0: none is."""
        size = len(self._places)
        at = max(0, size + adding - KEPT)
        if at >= size:
            return 0
        # Between two batches there is a mark, so the places of a batch end where one is missing.
        while at + 1 < size and self._places[at + 1] == self._places[at] + 1:
            at += 1
        return self._places[at] + 1

    def _first(self) -> int:
        return max(0, len(self._sequences) - KEPT)


class Reached:
    """How far a producer is: ``mark`` is the sequence of its last mark, 0 when there is none; the session is that of
    the client's ``instance``."""

    __slots__ = ("instance", "mark", "reached", "results", "session")

    def __init__(self, mark: int = 0, session: int = 0, reached: int = 0, instance: str = "") -> None:
        self.mark = mark
        self.session = session
        self.reached = reached
        self.instance = instance
        self.results = Results()
