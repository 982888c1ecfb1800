"""``zephyr bench bridge``: its cases, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.latency import measure_latency
from bench.loaded import measure_loaded
from bench.result import Result

CASES = ("loaded", "latency")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it."""

    cases: Sequence[str] = CASES
    rows: int = 200_000
    rows_per_transaction: Sequence[int] = (1, 100)
    rounds: int = 3
    transactions_per_second: Sequence[int] = (100, 5000)
    seconds: float = 10


async def measure_bridge(folder: Path, options: Options, say: Callable[[str], None]) -> Result:
    """Takes each figure on servers of its own below ``folder``.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    result = Result("bridge")
    if "loaded" in options.cases:
        for size in options.rows_per_transaction:
            place = folder / f"loaded-{size}"
            result.cases.append(await measure_loaded(place, options.rows, size, options.rounds, say))
    if "latency" in options.cases:
        for rate in options.transactions_per_second:
            result.cases.extend(await measure_latency(folder / f"latency-{rate}", rate, options.seconds, say))
    return result
