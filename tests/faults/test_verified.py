"""Each fault of ``zephyr verify faults`` by itself, some times over, judged by its oracle.

The short form is for every run of the suite; ``ZEPHYR_FAULTS=long`` (`make faults`) repeats
each fault until it has been tried in many places of the bridge's work.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from zephyr.verify import faults
from zephyr.verify.field import open_field
from zephyr.verify.run import FAULTS, POISON, Fault

SEED = int(os.environ.get("ZEPHYR_TEST_SEED", "7"))
LONG = os.environ.get("ZEPHYR_FAULTS") == "long"
TIMES = {
    # fault: short, long
    "bridge_killed": (4, 300),
    "killed_before_confirming": (1, 30),
    "cut_off": (1, 20),
    "answers_dropped": (1, 20),
    "broker_killed": (1, 30),
    "broker_forgets": (1, 30),
    "postgres_stopped": (1, 30),
    "adjacent_commits": (1, 40),
    "bridge_frozen": (1, 15),
    "broker_stalled": (1, 15),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.timeout(3600 if LONG else 120)
async def test_nothing_is_lost_or_repeated(name: str, tmp_path: Path) -> None:
    await happen(FAULTS[name][0], TIMES[name][LONG], tmp_path)


@pytest.mark.skipif(not POISON, reason="the bridge stops at a row that cannot become an event")
async def test_a_poison_row_leaves_a_marker_and_its_neighbours_pass(tmp_path: Path) -> None:
    await happen(faults.poison_row, 3, tmp_path)


async def happen(fault: Fault, times: int, folder: Path) -> None:
    chance = random.Random(SEED)
    async with open_field(folder, {"fsync": "off"}) as field:
        async with field.writing(SEED, writers=3):
            for _ in range(times):
                await fault(field, chance)
                await field.read_truth()
                await field.throttle()
        verdict = await field.verdict()
    assert verdict.holds, verdict
    assert verdict.events > 0
