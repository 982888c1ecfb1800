"""``zephyr bench catchup``: a long past read by one subscriber, and what others feel of it.

How fast is measured twice in one run: beside a bare consumer that reads the same stream from
the broker, and beside a bare gRPC handler that writes the same frames to the same client. What
is felt is the time from when an event was due (an open loop at a moderate rate) until 100 live
subscribers had it, with and without catch-ups that follow one another; and, to tell what is the machine's,
while the bare handler serves the same client and our server nobody but the live ones. All take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import start_clients
from bench.program import Program
from bench.result import Case, Result, percentiles
from bench.rounds import Round, case_of
from bench.serving import STREAM, WORKSPACE, Costs, Serving, open_files, open_serving
from bench.writer import EVENT_BYTES

Say = Callable[[str], None]
CLIENTS = ("skim", "typed")
_REPORT_S = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it."""

    events: int = 1_000_000
    client: str = "skim"
    live_subscribers: int = 100
    live_per_second: float = 50
    live_seconds: float = 10
    rounds: int = 3


async def measure_catchup(folder: Path, options: Options, say: Say) -> Result:
    """Two cases of how fast, one of what others feel.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    with open_files(4096):
        async with open_serving(folder) as serving:
            say(f"catchup: storing {options.events:,} events")
            await serving.write(options.events)
            async with serving.server() as server:
                work = _Work(serving, str(server.ready["grpc"]), server.pid, options, say)
                return Result("catchup", [*await work.past(), await work.live()])


@dataclass(slots=True)
class _Felt:
    """What live subscribers felt in one round."""

    latencies_ms: Sequence[float]
    holds: bool
    pasts: _Pasts


@dataclass(slots=True)
class _Pasts:
    """What the catch-ups beside had read while the live subscribers were measured."""

    events: int
    passed: int = 0
    through: int = 0
    per_s: float = 0.0

    def heard(self, name: str, value: Any) -> None:
        if name == "pass":
            self.passed += 1
            self.through = 0
        elif name == "through":
            self.through = max(0, int(value))

    @property
    def read(self) -> int:
        """Events, of all of them."""
        return self.passed * self.events + self.through


@dataclass(slots=True)
class _Work:
    """The stream of ``options.events`` and its server."""

    serving: Serving
    target: str
    server_pid: int | None
    options: Options
    say: Say
    greeting: int = 0

    @property
    def record(self) -> str:
        """Where the frames of the first catch-up are."""
        return str(self.serving.folder / "frames")

    async def past(self) -> list[Case]:
        events, rounds = self.options.events, self.options.rounds
        beside: dict[str, list[Round]] = {"raw consumer": [], "bare handler": []}
        for number in range(1, rounds + 1):
            raw = await self._consumer()
            async with AsyncExitStack() as closing:
                found, costs = await self._read(closing, self.target, "" if self.greeting else self.record)
                spent, peaks = costs.spent()
            self.greeting = self.greeting or found.greeting
            async with AsyncExitStack() as closing:
                handler = await closing.enter_async_context(self._handler())
                bare, _ = await self._read(closing, f"127.0.0.1:{await handler.heard('port')}")
            for name, ceiling in (("raw consumer", raw), ("bare handler", events / bare.seconds)):
                holds = found.holds(events)
                beside[name].append(Round(found.events, holds, events / found.seconds, ceiling, spent, peaks))
            self.say(
                f"catchup: round {number}/{rounds}: {found.events:,} of {events:,} events,"
                f" {events / found.seconds:,.0f}/s; raw consumer {raw:,.0f}/s,"
                f" bare handler {events / bare.seconds:,.0f}/s"
            )
        parameters = {"client": self.options.client, **self._parameters()}
        return [
            case_of({"case": "catchup", "beside": name, **parameters}, taken, "events/s")
            for name, taken in beside.items()
        ]

    async def _read(self, closing: AsyncExitStack, target: str, record: str = "") -> tuple[Any, Costs]:
        clients = await start_clients(
            closing, self.serving, target, 1, record=record, how=self.options.client, is_earliest=True
        )
        costs = Costs(server=self.server_pid, nats=self.serving.broker.pid, **clients.pids)
        clients.until(self.options.events)
        return await clients.done(), costs

    async def _consumer(self) -> float:
        """Events a second of a push consumer on a bare socket."""
        host, port = self.serving.broker.address
        given = {"host": host, "port": port, "stream": STREAM, "messages": self.options.events}
        async with self.serving.program("bench.consumer", **given) as consumer:
            return self.options.events / float(await consumer.heard("done"))

    async def live(self) -> Case:
        felt: dict[str, list[_Felt]] = {"alone": [], "beside": [], "elsewhere": []}
        rounds = self.options.rounds
        costs = Costs(server=self.server_pid, nats=self.serving.broker.pid)
        for number in range(1, rounds + 1):
            felt["alone"].append(await self._feel(None))
            felt["beside"].append(await self._feel(self.target))
            felt["elsewhere"].append(await self._feel_elsewhere())
            p99 = {name: percentiles(each[-1].latencies_ms)["p99"] for name, each in felt.items()}
            self.say(
                f"catchup: round {number}/{rounds}: p99 of {self.options.live_subscribers} live subscribers"
                f" {p99['beside']:,.1f} ms beside catch-ups of {felt['beside'][-1].pasts.per_s:,.0f} events/s,"
                f" {p99['alone']:,.1f} ms without, {p99['elsewhere']:,.1f} ms beside a bare handler's"
            )
        spent, peaks = costs.spent()
        taken = {
            name: [percentiles(each.latencies_ms)["p99"] for each in every] for name, every in felt.items()
        }
        pairs = list(zip(taken["beside"], taken["alone"], strict=True))
        beside = felt["beside"]
        parameters = {
            "case": "live beside catch-ups",
            "subscribers": self.options.live_subscribers,
            "events_per_second": self.options.live_per_second,
            "seconds": self.options.live_seconds,
            "catch_ups": [each.pasts.passed for each in beside],
            "catch_up_events_per_second": [round(each.pasts.per_s) for each in beside],
            "deliveries": [len(each.latencies_ms) for each in beside],
            "more_ms": round(statistics.median(then - first for then, first in pairs), 3),
            "without_ms": _all(felt["alone"]),
            "elsewhere_ms": _all(felt["elsewhere"]),
            **self._parameters(),
        }
        return Case(
            parameters=parameters,
            value=statistics.median(taken["beside"]),
            unit="ms (p99)",
            rounds=rounds,
            holds=all(each.holds for every in felt.values() for each in every),
            ceiling=statistics.median(taken["alone"]),
            ratios=[then / first for then, first in pairs],
            cpu_seconds=spent,
            peak_memory_bytes=peaks,
            latency_ms=_all(beside),
        )

    async def _feel_elsewhere(self) -> _Felt:
        """The machine alone: the catch-ups are of another process, that does nothing but write."""
        async with AsyncExitStack() as closing:
            handler = await closing.enter_async_context(self._handler())
            return await self._feel(f"127.0.0.1:{await handler.heard('port')}")

    async def _feel(self, past: str | None) -> _Felt:
        """One run of the live subscribers; with catch-ups from ``past`` that follow one another until it is over."""
        options = self.options
        pasts = _Pasts(options.events)
        events = max(1, round(options.live_per_second * options.live_seconds))
        async with AsyncExitStack() as closing:
            clients = await start_clients(
                closing, self.serving, self.target, options.live_subscribers,
                how="timed", workspaces=[[WORKSPACE]],
            )  # fmt: skip
            writer = await closing.enter_async_context(
                self.serving.writer(events, per_second=options.live_per_second)
            )
            await clients.ready()
            clients.until(self.serving.stored + events)
            reading = None
            if past is not None:
                reading = await start_clients(
                    closing, self.serving, past, 1,
                    how="skim", is_earliest=True, repeats=True, report_s=_REPORT_S,
                )  # fmt: skip
                reading.programs[0].on_said = pasts.heard
                reading.until(options.events)
                await reading.ready()
            began, read = time.monotonic(), pasts.read
            writer.tell(events)
            await self.serving.wrote(writer)
            found = await clients.done()
            pasts.per_s = (pasts.read - read) / (time.monotonic() - began)
            if reading is not None and not pasts.passed:
                # A past that takes longer than this to read: it was read all the while, but none to its end.
                await reading.programs[0].heard("pass")
        return _Felt(found.latencies_ms, found.holds(events), pasts)

    def _handler(self) -> AbstractAsyncContextManager[Program]:
        given = {"frames": self.record, "greeting": self.greeting, "streams": 1}
        return self.serving.program("bench.handler", **given)

    def _parameters(self) -> dict[str, object]:
        return {"stored_events": self.options.events, "event_bytes": EVENT_BYTES, **self.serving.settings()}


def _all(felt: Sequence[_Felt]) -> dict[str, float]:
    return percentiles([value for each in felt for value in each.latencies_ms])
