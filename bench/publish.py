"""``zephyr bench publish``: events a second through PublishStream, how long one Publish takes, and a broadcast.

One broker, one stream, one server; the clients take turns in each round, each a process of its own with as many
events in flight: a bare socket (the broker's ceiling), nats-py's ``publish_async``, our cheapest correct
client, and the Python client as users have it. What each stored is counted by the broker, and by the
results, which must be of each event in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
import orjson

from bench.broadcast import measure_broadcast
from bench.errors import BenchError
from bench.new_event import ENTITIES, entity, event_subjects, new_event, subject
from bench.result import Case, Result, percentiles
from bench.rounds import Round, case_of
from bench.serving import STREAM, WORKSPACE, Costs, Serving, open_serving

Say = Callable[[str], None]
CASES = ("stream", "single", "broadcast")
CLIENTS = ("skim", "typed")
_PEERS = {"nats-py publish_async": "bench.nats_publisher", "raw socket": "bench.raw_publisher"}
_PROGRAMS = {"skim": "bench.publisher", "typed": "zephyr.publish_program"}


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it."""

    cases: Sequence[str] = CASES
    clients: Sequence[str] = CLIENTS
    events: int = 100_000
    event_bytes: int = 250
    in_flight: int = 4000
    calls: int = 2000
    listeners: int = 1000
    broadcasts: int = 100
    broadcasts_per_second: float = 10
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Taken:
    """What one program did. ``counted`` is how many events the broker has since."""

    events: int
    counted: int
    seconds: float
    broken: Sequence[str]
    latencies_ms: Sequence[float]
    cpu_seconds: dict[str, float]
    peak_memory_bytes: dict[str, int]

    @property
    def per_s(self) -> float:
        return self.events / self.seconds

    def holds(self, events: int) -> bool:
        """Whether exactly so many are stored, each at the place that its result says."""
        return self.events == self.counted == events and not self.broken


async def measure_publish(folder: Path, options: Options, say: Say) -> Result:
    """The cases of the options.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    async with open_serving(folder) as serving, serving.server() as server:
        work = _Work(serving, str(server.ready["grpc"]), server.pid, options, say)
        result = Result("publish")
        if "stream" in options.cases:
            result.cases += await work.stream()
        if "single" in options.cases:
            result.cases.append(await work.single())
        if "broadcast" in options.cases:
            result.cases.append(
                await measure_broadcast(
                    serving,
                    work.target,
                    server.pid,
                    listeners=options.listeners,
                    broadcasts=options.broadcasts,
                    per_second=options.broadcasts_per_second,
                    event_bytes=options.event_bytes,
                    say=say,
                )
            )
        return result


@dataclass(slots=True)
class _Work:
    """The stream and its server."""

    serving: Serving
    target: str
    server_pid: int | None
    options: Options
    say: Say
    runs: int = 0

    async def stream(self) -> list[Case]:
        options = self.options
        rounds: dict[tuple[str, str], list[Round]] = {}
        for number in range(1, options.rounds + 1):
            beside = {name: await self._take(module, options.events) for name, module in _PEERS.items()}
            for client in options.clients:
                taken = await self._take(_PROGRAMS[client], options.events)
                for name, peer in beside.items():
                    holds = taken.holds(options.events) and peer.holds(options.events)
                    rounds.setdefault((client, name), []).append(
                        Round(
                            taken.events, holds, taken.per_s, peer.per_s,
                            taken.cpu_seconds, taken.peak_memory_bytes,
                        )
                    )  # fmt: skip
                self._tell(f"round {number}/{options.rounds}: {client} client", taken)
            for name, peer in beside.items():
                self._tell(f"round {number}/{options.rounds}: {name}", peer)
        cases = []
        for (client, name), taken_rounds in rounds.items():
            parameters = {"case": "stream", "client": client, "beside": name, **self._parameters()}
            case = case_of(parameters, taken_rounds, "events/s")
            cpu_us = {
                process: round(seconds * 1e6 / options.events, 1)
                for process, seconds in case.cpu_seconds.items()
            }
            cases.append(_with(case, cpu_us_an_event=cpu_us))
        return cases

    async def single(self) -> Case:
        options = self.options
        ours: list[Taken] = []
        peers: list[Taken] = []
        for number in range(1, options.rounds + 1):
            peers.append(await self._take("bench.nats_publisher", options.calls, single=True))
            ours.append(await self._take("bench.publisher", options.calls, single=True))
            for name, each in (("Publish", ours[-1]), ("nats-py publish", peers[-1])):
                p = percentiles(each.latencies_ms)
                self.say(
                    f"publish: round {number}/{options.rounds}: {name}, one by one:"
                    f" p50 {p['p50']:.2f} ms, p99 {p['p99']:.2f} ms"
                )
        p99 = [[percentiles(each.latencies_ms)["p99"] for each in taken] for taken in (ours, peers)]
        parameters = {
            "case": "single",
            "beside": "nats-py publish",
            "events": [each.events for each in ours],
            "beside_ms": percentiles([value for each in peers for value in each.latencies_ms]),
            **self._parameters(),
        }
        return Case(
            parameters=parameters,
            value=statistics.median(p99[0]),
            unit="ms (p99)",
            rounds=options.rounds,
            holds=all(each.holds(options.calls) for each in (*ours, *peers)),
            ceiling=statistics.median(p99[1]),
            ratios=[mine / theirs for mine, theirs in zip(*p99, strict=True)],
            cpu_seconds={
                name: round(statistics.median(each.cpu_seconds[name] for each in ours), 2)
                for name in ours[0].cpu_seconds
            },
            peak_memory_bytes={
                name: max(each.peak_memory_bytes[name] for each in ours) for name in ours[0].peak_memory_bytes
            },
            latency_ms=percentiles([value for each in ours for value in each.latencies_ms]),
        )

    async def _take(self, module: str, events: int, *, single: bool = False) -> Taken:
        """One program's turn."""
        self.runs += 1
        before = await self._count()
        async with self.serving.program(module, **self._spec(module, events, single)) as program:
            await program.heard("prepared")
            costs = Costs(server=self.server_pid, nats=self.serving.broker.pid, client=program.pid)
            program.tell("go")
            done: dict[str, Any] = await program.heard("done")
            spent, peaks = costs.spent()
        counted, last = await self._count(), await self._last()
        broken = list(done["broken"])
        if done["last"] != last:
            broken.append(f"the last result is of {done['last']}, and the last event is at {last}")
        return Taken(
            done["events"], counted - before, done["seconds"], broken, done["latencies_ms"], spent, peaks
        )

    def _spec(self, module: str, events: int, single: bool) -> dict[str, object]:
        size = self.options.event_bytes
        if module == "bench.raw_publisher":
            host, port = self.serving.broker.address
            pattern = subject(WORKSPACE, 0).replace(f"{0:012}.event", "%012d.event")
            return {
                "host": host, "port": port, "subjects": pattern, "entities": ENTITIES,
                "events": events, "size": size, "in_flight": self.options.in_flight,
            }  # fmt: skip
        producer = f"bench-{self.runs}"
        if module == "zephyr.publish_program":
            title = new_event(WORKSPACE, 0, size).note.title
            return {
                "target": self.target, "workspace": WORKSPACE, "producer": producer, "events": events,
                "in_flight": self.options.in_flight,
                "entities": [entity(number) for number in range(ENTITIES)], "title": title,
            }  # fmt: skip
        target = self.serving.broker.url if module == "bench.nats_publisher" else self.target
        return {
            "target": target, "workspace": WORKSPACE, "producer": producer, "events": events,
            "size": size, "in_flight": self.options.in_flight, "single": single,
        }  # fmt: skip

    def _tell(self, what: str, taken: Taken) -> None:
        broken = f"; {taken.broken[0]}" if taken.broken else ""
        self.say(f"publish: {what}: {taken.counted:,} events stored, {taken.per_s:,.0f}/s{broken}")

    def _parameters(self) -> dict[str, object]:
        return {
            "event_bytes": self.options.event_bytes,
            "in_flight": self.options.in_flight,
            **self.serving.settings(),
        }

    async def _count(self) -> int:
        """How many events the broker has."""
        asked = {"subjects_filter": event_subjects(WORKSPACE)}
        state = (await self._ask(f"STREAM.INFO.{STREAM}", asked))["state"]
        return sum((state.get("subjects") or {}).values())

    async def _last(self) -> int:
        """Where the last event is."""
        asked = {"last_by_subj": event_subjects(WORKSPACE)}
        return int((await self._ask(f"STREAM.MSG.GET.{STREAM}", asked))["message"]["seq"])

    async def _ask(self, request: str, asked: Mapping[str, object]) -> dict[str, Any]:
        try:
            connection = await nats.connect(self.serving.broker.url, allow_reconnect=False)
            try:
                reply = await connection.request(f"$JS.API.{request}", orjson.dumps(asked), timeout=30)
            finally:
                await connection.close()
        except (nats.errors.Error, OSError) as exc:
            raise BenchError(
                f"NATS went away: {exc or type(exc).__name__}", "see its log (--data keeps it)"
            ) from exc
        answer: dict[str, Any] = orjson.loads(reply.data)
        if error := answer.get("error"):
            raise BenchError(f"NATS refused {request}: {error.get('description')}")
        return answer


def _with(case: Case, **parameters: object) -> Case:
    return Case(
        parameters={**case.parameters, **parameters}, value=case.value, unit=case.unit, rounds=case.rounds,
        holds=case.holds, ceiling=case.ceiling, ratios=case.ratios, cpu_seconds=case.cpu_seconds,
        peak_memory_bytes=case.peak_memory_bytes,
    )  # fmt: skip
