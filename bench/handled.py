"""``zephyr bench latency``: from COMMIT to the handler, through Postgres, bridge, broker, server and client.

A transaction counts from when its COMMIT had returned, its event until a client in a process of
its own has it as a typed event: both of this machine's one clock. Taken with the server
nearly idle, and at half of what the whole way carries, which a short ramp finds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import start_clients
from bench.load import WORKSPACE, drop_notes, make_workspace
from bench.paced import CONNECTIONS, write_paced, writer_of_note
from bench.result import Case, Result, percentiles
from bench.rig import Rig, open_rig
from bench.rig import Round as Running
from bench.serving import Costs, Serving

Say = Callable[[str], None]

WARM_UP_S = 1.0
"""What is written in the first second must arrive, and is not among the latencies."""
_RAMP_FROM = 250
_RAMP_STEPS = 8
_RAMP_S = 2.0
_REACHED = 0.98
_LATE_MS = 500.0
"""A rate at which one of a hundred takes longer is not carried."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure. ``per_second`` None: half of what the ramp finds."""

    idle_per_second: int = 100
    per_second: int | None = None
    seconds: float = 10


@dataclass(frozen=True, slots=True)
class _Taken:
    """One rate."""

    per_second: int
    achieved_per_s: float
    events: int
    holds: bool
    latency_ms: dict[str, float]
    cpu_seconds: dict[str, float]
    peak_memory_bytes: dict[str, int]

    @property
    def is_reached(self) -> bool:
        return self.achieved_per_s >= _REACHED * self.per_second

    @property
    def is_carried(self) -> bool:
        return self.is_reached and self.latency_ms.get("p99", _LATE_MS) < _LATE_MS


async def measure_handled(folder: Path, options: Options, say: Say) -> Result:
    """A case with the server nearly idle, one under load.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    async with open_rig(folder, first_run=False) as rig, rig.empty_round() as running:
        await make_workspace(rig.dsn)
        await running.bridge.start()
        serving = Serving(folder, running.nats)
        async with serving.server() as server:
            work = _Work(rig, running, serving, str(server.ready["grpc"]), server.pid, say)
            idle = await work.take(options.idle_per_second, options.seconds)
            carried = None if options.per_second else await work.ramp()
            per_second = options.per_second or max(1, (carried or 0) // 2)
            loaded = await work.take(per_second, options.seconds)
        settings = await rig.settings()
    cases = []
    for name, taken in (("idle", idle), ("loaded" if options.per_second else "half of capacity", loaded)):
        parameters: dict[str, Any] = {
            "case": name,
            "since": "COMMIT returned",
            "transactions_per_second": taken.per_second,
            "achieved_per_second": round(taken.achieved_per_s, 1),
            "rate_reached": taken.is_reached,
            "seconds": options.seconds,
            "warm_up_s": WARM_UP_S,
            "connections": min(CONNECTIONS, taken.per_second),
            "rows_per_transaction": 1,
            "events": [taken.events],
            **settings,
        }
        if carried is not None and taken is loaded:
            parameters["capacity_per_second"] = carried
        cases.append(
            Case(
                parameters=parameters,
                value=taken.latency_ms.get("p99", 0.0),
                unit="ms (p99)",
                rounds=1,
                holds=taken.holds,
                cpu_seconds=taken.cpu_seconds,
                peak_memory_bytes=taken.peak_memory_bytes,
                latency_ms=taken.latency_ms,
            )
        )
    return Result("latency", cases)


@dataclass(frozen=True, slots=True)
class _Work:
    """The whole way, running."""

    rig: Rig
    running: Running
    serving: Serving
    target: str
    server_pid: int | None
    say: Say

    async def ramp(self) -> int:
        """The highest rate that is carried, of those that double."""
        carried, rate = _RAMP_FROM // 2, _RAMP_FROM
        for _ in range(_RAMP_STEPS):
            if not (await self.take(rate, _RAMP_S)).is_carried:
                break
            carried, rate = rate, rate * 2
        between = (carried + rate) // 2
        return between if (await self.take(between, _RAMP_S)).is_carried else carried

    async def take(self, per_second: int, seconds: float) -> _Taken:
        stream, dsn = self.running.stream, self.rig.dsn
        what = f"the bridge at {per_second} transactions/s"
        # The writers number their notes from 0: those of the rate before must be gone.
        before = await stream.events()
        await drop_notes(dsn)
        await stream.until_events(before + 1, what)
        async with AsyncExitStack() as closing:
            clients = await start_clients(
                closing, self.serving, self.target, 1, how="arrivals", workspaces=[[WORKSPACE]]
            )
            await clients.ready()
            costs = Costs(
                bridge=self.running.bridge.pid, nats=self.running.nats.pid, postgres=self.rig.postgres.pid,
                server=self.server_pid, **clients.pids,
            )  # fmt: skip
            written = await write_paced(dsn, per_second, WARM_UP_S + seconds)
            await stream.until_events(before + 1 + len(written.returned), what)
            clients.until(await stream.last_event_sequence())
            found = await clients.done()
            spent, peaks = costs.spent()
        peaks |= await self.rig.peak_memory_bytes(self.running)
        handled = {writer_of_note(note): at for note, at in found.arrivals.items()}
        times = [
            (handled[writer] - at) * 1000
            for writer, at in written.returned.items()
            if writer in handled and at >= written.start + WARM_UP_S
        ]
        holds = found.holds(len(written.returned)) and handled.keys() == written.returned.keys()
        taken = _Taken(
            per_second, written.achieved_per_s, found.events, holds, percentiles(times), spent, peaks
        )
        self.say(
            f"latency: {found.events:,} of {len(written.returned):,} events at {taken.achieved_per_s:,.0f}"
            f" transactions/s: p50 {taken.latency_ms.get('p50', 0):,.1f} ms, p99 {taken.latency_ms.get('p99', 0):,.1f} ms"
        )
        return taken
