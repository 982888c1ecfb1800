"""``zephyr bench snapshot``: the first copy of a table into the stream, beside a COPY of the same table.

The time runs from the bridge's start as a process to its last event, by the broker's clock:
starting up, reading the schema and making the stream are in it. Each round has an empty broker
and no slot, so that each begins a new history.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.ceiling import run_ceiling
from bench.errors import BenchError
from bench.load import ROW_BYTES, fill_notes
from bench.result import Result
from bench.rig import Rig, open_rig
from bench.rounds import Round, case_of
from bench.usage import Meter, cpu_seconds

TABLE = "public.notes"


async def measure_snapshot(folder: Path, rows: int, rounds: int, say: Callable[[str], None]) -> Result:
    """One case: the same table in every round.

    Raises:
        BenchError, StackError: the figure cannot be taken.
    """
    async with open_rig(folder, first_run=False) as rig:
        say(f"snapshot: filling the table with {rows} rows")
        await fill_notes(rig.dsn, rows)
        done: list[Round] = []
        for number in range(1, rounds + 1):
            reader = rows / await run_ceiling("snapshot", rig.dsn, TABLE, str(rows))
            each = await _bridge(rig, rows, reader)
            done.append(each)
            say(
                f"snapshot: round {number}/{rounds}: {each.events} events of {rows} rows stored,"
                f" {each.per_s:,.0f} rows/s; COPY {reader:,.0f} rows/s"
            )
        parameters = {
            "case": "snapshot",
            "rows": rows,
            "row_bytes": ROW_BYTES,
            "fenced": True,
            **await rig.settings(),
        }
        return Result("snapshot", [case_of(parameters, done)])


async def _bridge(rig: Rig, rows: int, reader_rows_per_s: float) -> Round:
    async with rig.empty_round() as running:
        meter = Meter({"nats": running.nats.pid, "postgres": rig.postgres.pid})
        started = time.time()
        # It is ready once the copy is done and changes are streamed.
        await running.bridge.start()
        assert running.bridge.pid is not None
        spent = {"bridge": round(cpu_seconds(running.bridge.pid), 2), **meter.cpu_seconds()}
        peaks = await rig.peak_memory_bytes(running)
        events = await running.stream.events() - 1  # the workspace
        if events <= 0:
            raise BenchError(
                "the bridge copied nothing at its start", "see ZEPHYR_SNAPSHOT; and --data for its log"
            )
        entities = await running.stream.entities() - 1
        return Round(
            events=events,
            # Each row once, and nothing else: as many events as rows, and each of another entity.
            holds=events == entities == rows,
            per_s=rows / (await running.stream.last_event_at() - started),
            ceiling_per_s=reader_rows_per_s,
            cpu_seconds=spent,
            peak_memory_bytes=peaks,
        )
