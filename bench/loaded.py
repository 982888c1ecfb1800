"""Rows a second from a loaded WAL into JetStream on file, beside a bare reader of the same slot.

The time runs from the first stored event to the last, by the broker's own clock, so that
starting the process is not in it. The reader's runs from its first frame to its last row.
The two take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.ceiling import run_ceiling
from bench.load import ROW_BYTES, UPDATES, load_changes
from bench.result import Case
from bench.rig import PUBLICATION, Rig, open_rig
from bench.rounds import Round, case_of
from bench.usage import Meter
from protos.events.v1 import stream_format as fmt

Say = Callable[[str], None]


async def measure_loaded(folder: Path, rows: int, rows_per_transaction: int, rounds: int, say: Say) -> Case:
    """One case: the same WAL in every round.

    Raises:
        BenchError: the bridge or the reader does not get through.
    """
    async with open_rig(folder) as rig:
        say(f"loaded: writing {rows} changes, {rows_per_transaction} a transaction")
        end_lsn = await load_changes(rig.dsn, rows, rows_per_transaction)
        done: list[Round] = []
        for number in range(1, rounds + 1):
            reader = await _read(rig, rows)
            each = await _bridge(rig, rows, end_lsn, reader)
            done.append(each)
            say(
                f"loaded: round {number}/{rounds}: {each.events} of {rows} events stored,"
                f" {each.per_s:,.0f} rows/s; reader {reader:,.0f} rows/s"
            )
        parameters = {
            "case": "loaded",
            "rows": rows,
            "rows_per_transaction": rows_per_transaction,
            "row_bytes": ROW_BYTES,
            "fenced": True,
            "updates": UPDATES,
            **await rig.settings(),
        }
        return case_of(parameters, done)


async def _bridge(rig: Rig, rows: int, end_lsn: int, reader_rows_per_s: float) -> Round:
    async with rig.round() as running:
        stream, what = running.stream, f"the bridge, with {rows} rows to store"
        before = await stream.last_sequence()
        await running.bridge.start()
        meter = Meter({"bridge": running.bridge.pid, "nats": running.nats.pid, "postgres": rig.postgres.pid})

        async def all_stored() -> bool:
            return await stream.events() - rig.baseline_events >= rows

        await stream.until(all_stored, what)
        spent = meter.cpu_seconds()
        peaks = await rig.peak_memory_bytes(running)
        await stream.until_marked(end_lsn, what)
        await running.bridge.stop()
        stored, in_order, last = 0, True, fmt.CommitPlace(0, 0)
        times: list[float] = []
        async for message in stream.read(before):
            stored += 1
            place = (message.commit.lsn, message.commit.index)
            in_order = in_order and place > (last.lsn, last.index)
            last = message.commit
            times = [times[0] if times else message.stored_at, message.stored_at]
        seconds = times[-1] - times[0] if times else 0.0
        return Round(
            events=stored,
            holds=stored == rows and in_order,
            per_s=rows / seconds if seconds else 0.0,
            ceiling_per_s=reader_rows_per_s,
            cpu_seconds=spent,
            peak_memory_bytes=peaks,
        )


async def _read(rig: Rig, rows: int) -> float:
    """The ceiling, in rows a second."""
    async with rig.copied_slot() as slot:
        return rows / await run_ceiling("bridge", rig.dsn, slot, PUBLICATION, str(rows))
