"""From COMMIT to stored, at a steady rate.

A transaction counts from when its COMMIT was sent (waiting for Postgres' disk is in it), and
once more from when it had returned; its event counts as stored at the time that the broker
put on it. Both are of this machine's one clock. Times are read back from the stream
afterwards, so that nobody but the bridge and the broker is at work meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.database import session
from bench.load import ROW_BYTES, wal_position
from bench.paced import CONNECTIONS, write_paced, writer_of
from bench.result import Case, percentiles
from bench.rig import open_rig
from bench.usage import Meter

WARM_UP_S = 1.0
"""What is written in the first second is stored and counted, and not among the latencies."""
_REACHED = 0.98


async def measure_latency(
    folder: Path, per_second: int, seconds: float, say: Callable[[str], None]
) -> list[Case]:
    """Two cases of one run: from COMMIT sent, and from COMMIT returned.

    Raises:
        BenchError: the bridge does not get through.
    """
    async with open_rig(folder) as rig, rig.round() as running:
        before = await running.stream.last_sequence()
        await running.bridge.start()
        meter = Meter({"bridge": running.bridge.pid, "nats": running.nats.pid, "postgres": rig.postgres.pid})
        say(f"latency: {per_second} transactions/s for {WARM_UP_S + seconds:g} s")
        written = await write_paced(rig.dsn, per_second, WARM_UP_S + seconds)
        spent = meter.cpu_seconds()
        peaks = await rig.peak_memory_bytes(running)
        async with session(rig.dsn) as connection:
            end_lsn = await wal_position(connection)
        await running.stream.until_marked(end_lsn, f"the bridge at {per_second} transactions/s")

        stored: dict[tuple[int, int], float] = {}
        events = 0
        async for message in running.stream.read(before):
            events += 1
            if (writer := writer_of(message.subject)) is not None:
                stored[writer] = message.stored_at
        holds = events == len(stored) == len(written.sent) and stored.keys() == written.sent.keys()
        achieved = written.achieved_per_s
        say(
            f"latency: {events} of {len(written.sent)} events stored, {achieved:,.0f} transactions/s"
            + ("" if achieved >= _REACHED * per_second else ": the rate was not reached")
        )
        parameters: dict[str, Any] = {
            "case": "latency",
            "transactions_per_second": per_second,
            "achieved_per_second": round(achieved, 1),
            "rate_reached": achieved >= _REACHED * per_second,
            "seconds": seconds,
            "warm_up_s": WARM_UP_S,
            "connections": min(CONNECTIONS, per_second),
            "rows": len(written.sent),
            "rows_per_transaction": 1,
            "row_bytes": ROW_BYTES,
            "events": [events],
            "fenced": True,
            **await rig.settings(),
        }
        cases = []
        for since, times in (("COMMIT sent", written.sent), ("COMMIT returned", written.returned)):
            measured = [
                (stored[writer] - at) * 1000
                for writer, at in times.items()
                if writer in stored and at >= written.start + WARM_UP_S
            ]
            found = percentiles(measured)
            cases.append(
                Case(
                    parameters={**parameters, "since": since},
                    value=found.get("p99", 0.0),
                    unit="ms (p99)",
                    rounds=1,
                    holds=holds,
                    cpu_seconds=spent,
                    peak_memory_bytes=peaks,
                    latency_ms=found,
                )
            )
        return cases
