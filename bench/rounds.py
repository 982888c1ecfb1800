"""Rounds of a case whose figure is so many a second beside a ceiling's: what each took, and the case of all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.result import Case


@dataclass(frozen=True, slots=True)
class Round:
    """One round. ``holds``: exactly what was written was counted."""

    events: int
    holds: bool
    per_s: float
    ceiling_per_s: float
    cpu_seconds: Mapping[str, float]
    peak_memory_bytes: Mapping[str, int]


def case_of(parameters: Mapping[str, Any], rounds: Sequence[Round], unit: str = "rows/s") -> Case:
    """The middle figure of the rounds, with what they took, and the most memory of any."""
    first = rounds[0]
    return Case(
        parameters={**parameters, "events": [each.events for each in rounds]},
        value=statistics.median(each.per_s for each in rounds),
        unit=unit,
        rounds=len(rounds),
        holds=all(each.holds for each in rounds),
        ceiling=statistics.median(each.ceiling_per_s for each in rounds),
        ratios=[each.per_s / each.ceiling_per_s for each in rounds],
        cpu_seconds={
            name: round(statistics.median(each.cpu_seconds[name] for each in rounds), 2)
            for name in first.cpu_seconds
        },
        peak_memory_bytes={
            name: max(each.peak_memory_bytes[name] for each in rounds) for name in first.peak_memory_bytes
        },
    )
