"""``zephyr bench idle``: what an idle stream costs in memory, and how soon all are back after a restart.

Streams with one live subscription each are opened; what the server's memory grew by, divided by
their number, stands beside the same of a bare gRPC handler with the same streams of the same
client program. Then the server is stopped, some events are written, and it is started again:
every client resumes after its cursor and must have these events, once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from bench.clients import Clients, start_clients
from bench.result import Case, Result
from bench.rounds import Round, case_of
from bench.serving import WORKSPACE, Costs, Serving, open_files, open_serving
from bench.usage import memory_bytes

Say = Callable[[str], None]
_MEANWHILE = 5
"""Events that are written while the server is away."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it."""

    streams: int = 10_000
    streams_per_connection: int = 100
    processes: int = 4
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class _Back:
    """How soon all were back: seconds since the server was started again, and since it served again."""

    since_start_s: float
    since_serving_s: float
    holds: bool


async def measure_idle(folder: Path, options: Options, say: Say) -> Result:
    """A case of memory, one of resuming.

    Raises:
        BenchError, StackError: a figure cannot be taken, for example since files may not be opened.
    """
    connections = max(1, options.streams // options.streams_per_connection)
    memory: list[Round] = []
    back: list[_Back] = []
    spent: list[tuple[dict[str, float], dict[str, int]]] = []
    with open_files(connections + 1000):
        async with open_serving(folder) as serving:
            work = _Work(serving, options, connections)
            for number in range(1, options.rounds + 1):
                each, resumed, costs = await work.round()
                memory.append(each)
                back.append(resumed)
                spent.append(costs)
                say(
                    f"idle: round {number}/{options.rounds}: {options.streams:,} streams of {each.per_s:,.0f} bytes"
                    f" each, of the bare handler {each.ceiling_per_s:,.0f};"
                    f" all back {resumed.since_serving_s:.1f} s after the server served again"
                )
            parameters = {
                "streams": options.streams,
                "streams_per_connection": options.streams_per_connection,
                "client_processes": options.processes,
                **serving.settings(),
            }
    seconds = statistics.median(each.since_serving_s for each in back)
    resuming = Case(
        parameters={
            "case": "resume after a restart",
            **parameters,
            "events": [_MEANWHILE * options.streams] * options.rounds,
            "seconds_since_start": [round(each.since_start_s, 2) for each in back],
            "seconds_since_serving": [round(each.since_serving_s, 2) for each in back],
        },
        value=seconds,
        unit="s to the last caught_up",
        rounds=options.rounds,
        holds=all(each.holds for each in back),
        cpu_seconds=spent[-1][0],
        peak_memory_bytes=spent[-1][1],
    )
    return Result("idle", [case_of({"case": "memory", **parameters}, memory, "bytes a stream"), resuming])


@dataclass(frozen=True, slots=True)
class _Work:
    """One broker for all rounds; each has a server of its own."""

    serving: Serving
    options: Options
    connections: int

    async def round(self) -> tuple[Round, _Back, tuple[dict[str, float], dict[str, int]]]:
        frames = str(self.serving.folder / "frames")
        async with self.serving.server() as server, AsyncExitStack() as closing:
            assert server.pid is not None
            before = memory_bytes(server.pid)
            clients = await self._clients(closing, str(server.ready["grpc"]), frames)
            costs = Costs(server=server.pid, nats=self.serving.broker.pid, **clients.pids)
            await clients.ready()
            each = (memory_bytes(server.pid) - before) / self.options.streams
            spent, peaks = costs.spent()
            clients.until(0)
            found = await clients.done()

            await server.stop()
            last = await self.serving.write(_MEANWHILE)
            clients.until(last)
            started = monotonic()
            await server.start()
            serving = monotonic()
            resuming = Costs(server=server.pid, nats=self.serving.broker.pid, **clients.pids)
            at = await clients.ready()
            resumed = await clients.done()
            back = _Back(at - started, at - serving, resumed.holds(_MEANWHILE))
            resuming_costs = resuming.spent()
        ceiling = await self._bare(frames, found.greeting)
        memory = Round(0, found.holds(0), each, ceiling, spent, peaks)
        return memory, back, resuming_costs

    async def _bare(self, frames: str, greeting: int) -> float:
        """Bytes a stream of the bare handler."""
        async with AsyncExitStack() as closing:
            spec: dict[str, Any] = {"frames": frames, "greeting": greeting, "streams": 1}
            handler = await closing.enter_async_context(self.serving.program("bench.handler", **spec))
            target = f"127.0.0.1:{await handler.heard('port')}"
            before = memory_bytes(handler.pid)
            clients = await self._clients(closing, target)
            await clients.ready()
            return (memory_bytes(handler.pid) - before) / self.options.streams

    async def _clients(self, closing: AsyncExitStack, target: str, record: str = "") -> Clients:
        return await start_clients(
            closing, self.serving, target, self.options.streams, self.options.processes,
            self.connections, record, workspaces=[[WORKSPACE]], resumes=True,
        )  # fmt: skip
