"""How a run ended: the numbers, the one line, the JSON, and whether it proves what it should."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zephyr.demo.expected import Counts


@dataclass(slots=True)
class Result:
    """``seconds`` are those from the first write to the last delivery, latencies those from commit
    to receipt over all deliveries, both by this machine's clock."""

    commits: int
    events: int
    subscribers: int
    counts: Counts
    p50_ms: float
    p99_ms: float
    seconds: float
    skipped: Counter[str]
    state_equal: bool = False
    cache_equal: bool = False
    remarks: list[str] = field(default_factory=list)
    """What differs, what stopped and what could not be compared, in words."""

    @property
    def holds(self) -> bool:
        """Whether each subscriber got each event once and in order, and state and cache are equal."""
        counts = self.counts
        nothing_wrong = not (counts.lost or counts.duplicated or counts.out_of_order)
        return nothing_wrong and self.state_equal and self.cache_equal

    @property
    def line(self) -> str:
        counts = self.counts
        return (
            f"commits {self.commits} · events {self.events} · delivered {counts.delivered}"
            f" · lost {counts.lost} · duplicated {counts.duplicated} · out of order {counts.out_of_order}"
            f" · p50 {self.p50_ms:.1f} ms · p99 {self.p99_ms:.1f} ms"
        )

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        return {
            "commits": self.commits,
            "events": self.events,
            "subscribers": self.subscribers,
            "delivered": self.counts.delivered,
            "lost": self.counts.lost,
            "duplicated": self.counts.duplicated,
            "unexpected": self.counts.unexpected,
            "out_of_order": self.counts.out_of_order,
            "state_equal": self.state_equal,
            "cache_equal": self.cache_equal,
            "skipped": self.skipped.total(),
            "skipped_by_reason": dict(sorted(self.skipped.items())),
            "p50_ms": round(self.p50_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / self.seconds, 1) if self.seconds else 0.0,
        }
