"""What is much at once, or cannot leave, does not grow the bridge: its peak of resident memory is bounded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.test_verified import LONG, SEED
from tests.fixtures.servers import CopyCluster
from zephyr.verify.field import Field, open_field
from zephyr.verify.proxy import Mode
from zephyr.verify.wait import until

ROWS = 1_000_000 if LONG else 30_000
TEXTS = 8 if LONG else 30
"""Texts of 32 bytes in a row."""
WARM_UP = 5000
SECONDS = 900 if LONG else 60
GROWTH_MIB = 40
"""Less than the rows have as messages: some 50 MiB in the short form, 500 MiB in the long one."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak"),
    pytest.mark.timeout(1800 if LONG else 300),
]


def peak_mib(field: Field) -> float:
    """The most that the bridge's process ever had resident."""
    for line in Path(f"/proc/{field.bridge.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


async def insert(field: Field, rows: int, end: str = "COMMIT", texts: int = TEXTS) -> None:
    async with field.database() as connection:
        await connection.execute(
            "BEGIN; INSERT INTO notes (workspace_id, title, body)"
            f" SELECT w.id, 'row ' || n, repeat(md5(n::text), {texts})"
            f" FROM (SELECT id FROM workspaces ORDER BY id LIMIT 1) AS w, generate_series(1, {rows}) AS n;"
            f" {end}".encode()
        )


async def test_a_large_transaction_and_a_long_cut_leave_memory_bounded(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    copy_cluster(tmp_path / "postgres")
    async with open_field(tmp_path, {"fsync": "off"}) as field:
        await insert(field, WARM_UP)
        await field.caught_up(SECONDS)
        before, pid, term = peak_mib(field), field.bridge.pid, field.bridge.term
        # Beside small transactions and one that is rolled back.
        async with field.writing(SEED, writers=2):
            await insert(field, ROWS // 3, "ROLLBACK")
            await insert(field, ROWS)
        await field.caught_up(SECONDS)
        assert peak_mib(field) - before < GROWTH_MIB

        field.proxy.set(Mode.BLACKHOLE)
        for _ in range(10):
            await insert(field, ROWS // 20)

        async def has_noticed() -> bool:
            return field.bridge.term != term

        await until(has_noticed, "the term ends")
        field.proxy.set(Mode.CUT)
        field.proxy.set(Mode.PASS)
        await field.bridge.streams(term)
        await field.caught_up(SECONDS)
        assert peak_mib(field) - before < GROWTH_MIB
        assert field.bridge.pid == pid
        verdict = await field.verdict()
    assert verdict.holds, verdict
    assert verdict.events > ROWS
