"""Rows a second from a loaded WAL into JetStream on file, beside a bare reader of the same slot.

The time runs from the first stored event to the last, by the broker's own clock, so that
starting the process is not in it. The reader's runs from its first frame to its last row.
The two take turns.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.load import ROW_BYTES, UPDATES, load_changes
from bench.result import Case
from bench.rig import PUBLICATION, Rig, open_rig
from bench.usage import cpu_seconds, peak_memory_bytes
from zephyr.stack.running import package_environment

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Round:
    rows: int
    rows_per_s: float
    reader_rows_per_s: float
    cpu_seconds: dict[str, float]
    peak_memory_bytes: dict[str, int]


async def measure_loaded(folder: Path, rows: int, rows_per_transaction: int, rounds: int, say: Say) -> Case:
    """One case: the same WAL in every round.

    Raises:
        BenchError: the bridge or the reader does not get through.
    """
    async with open_rig(folder) as rig:
        say(f"loaded: writing {rows} changes, {rows_per_transaction} a transaction")
        end_lsn = await load_changes(rig.dsn, rows, rows_per_transaction)
        done: list[_Round] = []
        for number in range(1, rounds + 1):
            reader = await _read(rig, rows)
            each = await _bridge(rig, rows, end_lsn, reader)
            done.append(each)
            say(
                f"loaded: round {number}/{rounds}: {each.rows} of {rows} events stored,"
                f" {each.rows_per_s:,.0f} rows/s; reader {reader:,.0f} rows/s"
            )
        return Case(
            parameters={
                "case": "loaded",
                "rows": rows,
                "rows_per_transaction": rows_per_transaction,
                "row_bytes": ROW_BYTES,
                "updates": UPDATES,
                "events": [each.rows for each in done],
                "fenced": True,
                **await rig.settings(),
            },
            value=statistics.median(each.rows_per_s for each in done),
            unit="rows/s",
            rounds=rounds,
            holds=all(each.rows == rows for each in done),
            ceiling=statistics.median(each.reader_rows_per_s for each in done),
            ratios=[each.rows_per_s / each.reader_rows_per_s for each in done],
            cpu_seconds={
                name: round(statistics.median(each.cpu_seconds[name] for each in done), 2)
                for name in done[0].cpu_seconds
            },
            peak_memory_bytes={
                name: max(each.peak_memory_bytes[name] for each in done) for name in done[0].peak_memory_bytes
            },
        )


async def _bridge(rig: Rig, rows: int, end_lsn: int, reader_rows_per_s: float) -> _Round:
    async with rig.round() as running:
        before = await running.stream.last_sequence()
        postgres_before = cpu_seconds(_pid(rig.postgres.pid))
        nats_before = cpu_seconds(_pid(running.nats.pid))
        await running.bridge.start()
        pids = {"bridge": running.bridge.pid, "nats": running.nats.pid, "postgres": rig.postgres.pid}
        bridge_before = cpu_seconds(_pid(running.bridge.pid))

        async def all_stored() -> bool:
            return await running.stream.events() - rig.baseline_events >= rows

        await running.stream.until(all_stored, f"the bridge, with {rows} rows to store")
        spent = {name: cpu_seconds(_pid(pid)) for name, pid in pids.items()}
        peaks = {
            "bridge": peak_memory_bytes(_pid(running.bridge.pid)),
            "nats": peak_memory_bytes(_pid(running.nats.pid)),
            "postgres_walsender": peak_memory_bytes(await rig.walsender_pid(running.slot)),
        }

        async def is_marked() -> bool:
            return await running.stream.marked_lsn() >= end_lsn

        # Whatever is stored beside what was written is stored by then.
        await running.stream.until(is_marked, "the bridge's mark after the last row")
        seconds = await running.stream.last_event_at() - await running.stream.first_event_at(before)
        return _Round(
            rows=await running.stream.events() - rig.baseline_events,
            rows_per_s=rows / seconds,
            reader_rows_per_s=reader_rows_per_s,
            cpu_seconds={
                "bridge": spent["bridge"] - bridge_before,
                "nats": spent["nats"] - nats_before,
                "postgres": spent["postgres"] - postgres_before,
            },
            peak_memory_bytes=peaks,
        )


async def _read(rig: Rig, rows: int) -> float:
    """The ceiling, in rows a second: a process of its own, as the bridge is."""
    async with rig.copied_slot() as slot:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.reader", rig.dsn, slot, PUBLICATION, str(rows),
            env=package_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = err.decode(errors="replace").strip().rpartition("\n")[2]
            raise BenchError(f"the bare reader ended with {process.returncode}: {last}", "see Postgres' log")
        return rows / float(out)


def _pid(pid: int | None) -> int:
    assert pid is not None
    return pid
