"""A run: writers commit, faults happen one after another as a seed draws them, then the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import psycopg

from zephyr.stack.errors import StackError
from zephyr.verify import faults, severe
from zephyr.verify.bridge import BridgeEnded
from zephyr.verify.field import Field, open_field
from zephyr.verify.verdict import Verdict
from zephyr.verify.wait import NotWithin

Fault = Callable[[Field, random.Random], Awaitable[None]]

# How often each is drawn.
FAULTS: Mapping[str, tuple[Fault, int]] = {
    "bridge_killed": (faults.bridge_killed, 8),
    "killed_before_confirming": (faults.killed_before_confirming, 3),
    "cut_off": (faults.cut_off, 2),
    "answers_dropped": (faults.answers_dropped, 2),
    "delayed": (faults.delayed, 1),
    "broker_killed": (severe.broker_killed, 3),
    "broker_forgets": (severe.broker_forgets, 3),
    "postgres_stopped": (severe.postgres_stopped, 3),
    "adjacent_commits": (faults.adjacent_commits, 4),
    "bridge_frozen": (faults.bridge_frozen, 1),
    "broker_stalled": (severe.broker_stalled, 1),
    "poison_row": (faults.poison_row, 1),
}
_TROUBLES = (BridgeEnded, NotWithin, StackError, nats.errors.Error, psycopg.Error)
"""What ends the faults early, and is told with the result."""
_READ_S = 1.0
"""How often the oracle reads the WAL, and looks how far the bridge is behind, while the run goes on."""


@dataclass(slots=True)
class Result:
    """What happened and what was found."""

    seed: int
    kills: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    stopped_by: str = ""
    """Why the faults ended before their time; nothing when they did not."""

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.stopped_by

    @property
    def line(self) -> str:
        verdict = self.verdict
        return (
            f"kills {self.kills} · faults {self.happened.total()} · commits {verdict.commits}"
            f" · events {verdict.events} · lost {verdict.lost} · duplicated {verdict.duplicated}"
            f" · out of order {verdict.out_of_order} · state {'equal' if verdict.state_equal else 'differs'}"
            f" · seed {self.seed}"
        )

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        verdict = self.verdict
        return {
            "kills": self.kills,
            "commits": verdict.commits,
            "events": verdict.events,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "out_of_order": verdict.out_of_order,
            "unexpected": verdict.unexpected,
            "state_equal": verdict.state_equal,
            "seed": self.seed,
            "faults": dict(sorted(self.happened.items())),
            "stopped_by": self.stopped_by,
            "remarks": verdict.remarks,
        }


async def run_faults(
    folder: Path, seconds: float, seed: int, on_fault: Callable[[str, Field], None] = lambda *_: None
) -> Result:
    """Draws faults for so many seconds, then waits for the stream and judges it.

    Raises:
        StackError: a server cannot be started.
    """
    chance = random.Random(seed)
    result = Result(seed)
    name = ""
    async with open_field(folder) as opened:
        ends = time.monotonic() + seconds
        names = list(FAULTS)
        weights = [weight for _, weight in FAULTS.values()]
        async with opened.writing(seed):
            reading = asyncio.ensure_future(_read(opened))
            try:
                while time.monotonic() < ends:
                    name = chance.choices(names, weights)[0]
                    on_fault(name, opened)
                    await FAULTS[name][0](opened, chance)
                    result.happened[name] += 1
            except _TROUBLES as exc:
                result.stopped_by = f"{name}: {_message(exc)}"
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        on_fault("the verdict", opened)
        try:
            await opened.caught_up()
        except _TROUBLES as exc:
            result.stopped_by = result.stopped_by or f"at the end: {_message(exc)}"
        try:
            # Also when it did not get there: the counts say how much is missing.
            result.verdict = await opened.judged()
        except _TROUBLES as exc:
            result.stopped_by = result.stopped_by or f"at the verdict: {_message(exc)}"
        result.kills = opened.kills
    return result


def _message(error: Exception) -> str:
    return str(getattr(error, "message", "")) or f"{type(error).__name__}: {error}"


async def _read(opened: Field) -> None:
    while True:
        await asyncio.sleep(_READ_S)
        await opened.read_truth()
        await opened.throttle()
