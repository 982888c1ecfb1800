"""Each fault of ``zephyr verify faults`` by itself, some times over, judged by its oracle.

The short form, one after the other on one stack, is for every run of the suite;
``ZEPHYR_FAULTS=long`` (`make faults`) repeats each on a stack of its own, until it has been
tried in many places of the bridge's work.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.fixtures.servers import CopyCluster
from zephyr.verify.bridge import BridgeEnded
from zephyr.verify.field import Field, open_field
from zephyr.verify.run import FAULTS

SEED = int(os.environ.get("ZEPHYR_TEST_SEED", "7"))
LONG = os.environ.get("ZEPHYR_FAULTS") == "long"
TIMES = {
    "bridge_killed": 300,
    "killed_before_confirming": 30,
    "cut_off": 20,
    "answers_dropped": 20,
    "broker_killed": 30,
    "broker_forgets": 30,
    "postgres_stopped": 30,
    "adjacent_commits": 40,
    "bridge_frozen": 15,
    "broker_stalled": 15,
}


@pytest.mark.skipif(not LONG, reason="the long form")
@pytest.mark.parametrize("name", TIMES)
@pytest.mark.timeout(3600)
async def test_nothing_is_lost_or_repeated(name: str, tmp_path: Path, copy_cluster: CopyCluster) -> None:
    copy_cluster(tmp_path / "postgres")
    await happen([name] * TIMES[name], tmp_path)


@pytest.mark.skipif(LONG, reason="the short form")
@pytest.mark.timeout(300)
async def test_each_fault_after_the_other(tmp_path: Path, copy_cluster: CopyCluster) -> None:
    copy_cluster(tmp_path / "postgres")
    await happen([*TIMES, "bridge_killed"], tmp_path)


async def test_a_poison_row_leaves_a_marker_and_its_neighbours_pass(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    copy_cluster(tmp_path / "postgres")
    await happen(["poison_row"] * 3, tmp_path)


async def test_feedback_goes_on_while_an_acknowledgement_is_waited_for(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    copy_cluster(tmp_path / "postgres")
    async with open_field(tmp_path, {"fsync": "off"}, ZEPHYR_BRIDGE_PUBLISH_TIMEOUT_S="30") as field:
        term = field.bridge.term
        async with field.writing(SEED, writers=2):
            await FAULTS["broker_stalled"][0](field, random.Random(SEED))
        verdict = await field.verdict()
        # Postgres would have ended the session, and with it the term.
        assert field.bridge.term == term
    assert verdict.holds, verdict


@pytest.mark.skipif(not LONG, reason="it shows that a fault bites, and holds for the long form")
async def test_without_hold_back_a_broker_that_forgets_is_noticed(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    copy_cluster(tmp_path / "postgres")
    async with open_field(tmp_path, {"fsync": "off"}, ZEPHYR_BRIDGE_HOLD_BACK_S="0") as field:
        async with field.writing(SEED, writers=3):
            with pytest.raises(BridgeEnded, match="the stream lost its end"):
                await again_and_again(field, "broker_forgets", 5)
        assert field.bridge.exit_code == 6


async def again_and_again(field: Field, name: str, times: int) -> None:
    chance = random.Random(SEED)
    for _ in range(times):
        await FAULTS[name][0](field, chance)


async def happen(names: list[str], folder: Path) -> None:
    chance = random.Random(SEED)
    async with open_field(folder, {"fsync": "off"}) as field:
        async with field.writing(SEED, writers=3):
            for name in names:
                await FAULTS[name][0](field, chance)
                await field.read_truth()
                await field.throttle()
        verdict = await field.verdict()
    assert verdict.holds, verdict
    assert verdict.events > 0
