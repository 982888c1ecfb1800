"""``zephyr bench catchup``: a long past read by one subscriber, and what others feel of it.

How fast is measured twice in one run: beside a bare consumer that reads the same stream from
the broker, and beside a bare gRPC handler that writes the same frames to the same client. What
is felt is the time from when an event was due (an open loop at a moderate rate) until 100 live
subscribers had it, with and without catch-ups that follow one another. All take turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clients import start_clients
from bench.result import Case, Result, percentiles
from bench.rounds import Round, case_of
from bench.serving import STREAM, WORKSPACE, Costs, Serving, open_files, open_serving
from bench.writer import EVENT_BYTES

Say = Callable[[str], None]
CLIENTS = ("skim", "typed")


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
    passed: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """The stream of ``options.events`` and its server."""

    serving: Serving
    target: str
    server_pid: int | None
    options: Options
    say: Say

    async def past(self) -> list[Case]:
        events, rounds = self.options.events, self.options.rounds
        beside: dict[str, list[Round]] = {"raw consumer": [], "bare handler": []}
        record, greeting = str(self.serving.folder / "frames"), 0
        for number in range(1, rounds + 1):
            raw = await self._consumer()
            async with AsyncExitStack() as closing:
                found, costs = await self._read(closing, self.target, "" if greeting else record)
                spent, peaks = costs.spent()
            greeting = greeting or found.greeting
            async with AsyncExitStack() as closing:
                given = {"frames": record, "greeting": greeting, "streams": 1}
                handler = await closing.enter_async_context(self.serving.program("bench.handler", **given))
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
        alone: list[_Felt] = []
        beside: list[_Felt] = []
        rounds = self.options.rounds
        costs = Costs(server=self.server_pid, nats=self.serving.broker.pid)
        for number in range(1, rounds + 1):
            alone.append(await self._feel(is_beside=False))
            beside.append(await self._feel(is_beside=True))
            first, then = (percentiles(each[-1].latencies_ms)["p99"] for each in (alone, beside))
            self.say(
                f"catchup: round {number}/{rounds}: p99 of {self.options.live_subscribers} live subscribers"
                f" {then:,.1f} ms beside {len(beside[-1].passed)} catch-ups, {first:,.1f} ms without"
            )
        spent, peaks = costs.spent()
        p99 = {name: [percentiles(each.latencies_ms)["p99"] for each in felt] for name, felt in
               (("alone", alone), ("beside", beside))}  # fmt: skip
        pairs = list(zip(p99["beside"], p99["alone"], strict=True))
        parameters = {
            "case": "live beside catch-ups",
            "subscribers": self.options.live_subscribers,
            "events_per_second": self.options.live_per_second,
            "seconds": self.options.live_seconds,
            "catch_ups": [len(each.passed) for each in beside],
            "deliveries": [len(each.latencies_ms) for each in beside],
            "more_ms": round(statistics.median(then - first for then, first in pairs), 3),
            "without_ms": percentiles([value for each in alone for value in each.latencies_ms]),
            **self._parameters(),
        }
        return Case(
            parameters=parameters,
            value=statistics.median(p99["beside"]),
            unit="ms (p99)",
            rounds=rounds,
            holds=all(each.holds for each in (*alone, *beside)),
            ceiling=statistics.median(p99["alone"]),
            ratios=[then / first for then, first in pairs],
            cpu_seconds=spent,
            peak_memory_bytes=peaks,
            latency_ms=percentiles([value for each in beside for value in each.latencies_ms]),
        )

    async def _feel(self, *, is_beside: bool) -> _Felt:
        """One run of the live subscribers; with catch-ups that follow one another until it is over."""
        options = self.options
        passed: list[int] = []
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
            if is_beside:
                reading = await start_clients(
                    closing, self.serving, self.target, 1, how="skim", is_earliest=True, repeats=True
                )
                reading.programs[0].on_said = lambda name, value: (
                    passed.append(value) if name == "pass" else None
                )
                reading.until(options.events)
                await reading.ready()
            writer.tell(events)
            await self.serving.wrote(writer)
            found = await clients.done()
            if reading is not None and not passed:
                # A past that takes longer than this to read: it was read all the while, but none to its end.
                await reading.programs[0].heard("pass")
        return _Felt(found.latencies_ms, found.holds(events), passed)

    def _parameters(self) -> dict[str, object]:
        return {"stored_events": self.options.events, "event_bytes": EVENT_BYTES, **self.serving.settings()}
