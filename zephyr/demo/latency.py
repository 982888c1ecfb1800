"""Latencies in bounded memory: a histogram whose buckets grow by 1 %.

A percentile is right to one per cent, whether a thousand or a billion values were recorded.
"""

from __future__ import annotations

import math
from array import array

_GROWTH = math.log(1.01)
_BUCKETS = 2400
"""1.01 to that power: from one microsecond to more than six hours."""


class Latencies:
    """Durations in microseconds; below one they count as one."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self.count = 0

    def record(self, microseconds: int) -> None:
        """Adds one duration."""
        bucket = int(math.log(microseconds) / _GROWTH) if microseconds > 1 else 0
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1

    def percentile_ms(self, percent: float) -> float:
        """The duration that ``percent`` of all do not exceed, in milliseconds; 0 when there is none."""
        wanted, passed = self.count * percent / 100, 0
        for bucket, count in enumerate(self._counts):
            passed += count
            if count and passed >= wanted:
                return math.exp((bucket + 0.5) * _GROWTH) / 1000
        return 0.0
