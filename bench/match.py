"""``zephyr bench match``: what an event costs the server beside subscriptions that do not want it.

A server for each number of such subscriptions, each of a workspace of its own, and with one
subscription that wants every event. All of them read the same stream, so the same events at the same
time, written as fast as the slowest takes them: so each reads and sends them in runs, and is not
woken for each. What a server spends meanwhile, less what it spends in a quiet time as long, is
divided by the events. That of the fewest subscriptions is what the others are compared with.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bench.clients import Clients, start_clients
from bench.result import Case, Result
from bench.serving import WORKSPACE, Costs, Serving, open_files, open_serving
from bench.writer import EVENT_BYTES

Say = Callable[[str], None]
_MOST_OF_A_STREAM = 100
"""A stream has at most so many subscriptions."""
_CONNECTIONS = 10
_REPORT_S = 0.005


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it: so many events in each round, after ``quiet_s`` seconds without any,
    long enough that the server's progress frames of a second are nothing beside it."""

    subscriptions: Sequence[int] = (100, 10_000, 100_000)
    events: int = 50_000
    window: int = 2000
    quiet_s: float = 10
    rounds: int = 3


@dataclass(slots=True)
class _Crowd:
    """One server, its subscriptions that do not match, and the one that does."""

    subscriptions: int
    pid: int
    strangers: Clients
    matching: Clients
    opened_s: float
    us: list[float] = field(default_factory=list)
    spent: list[tuple[dict[str, float], dict[str, int]]] = field(default_factory=list)

    def costs(self) -> Costs:
        """From now on."""
        return Costs(server=self.pid, client=self.strangers.programs[0].pid)


async def measure_match(folder: Path, options: Options, say: Say) -> Result:
    """A case for each number of subscriptions.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    with open_files(4096):
        async with open_serving(folder) as serving, AsyncExitStack() as closing:
            crowds = [await _open(serving, closing, each, say) for each in sorted(options.subscriptions)]
            for number in range(1, options.rounds + 1):
                await _round(serving, crowds, options)
                said = ", ".join(f"{each.us[-1]:,.1f} ({each.subscriptions:,})" for each in crowds)
                say(f"match: round {number}/{options.rounds}: µs an event: {said}")
            holds = [await _holds(serving, each, options.events * options.rounds) for each in crowds]
            settings = serving.settings()
    fewest = crowds[0]
    cases = []
    for each, has_held in zip(crowds, holds, strict=True):
        beside = each is not fewest
        cases.append(
            Case(
                parameters={
                    "case": "match",
                    "subscriptions": each.subscriptions,
                    "events": [options.events] * options.rounds,
                    "window_events": options.window,
                    "quiet_s": options.quiet_s,
                    "event_bytes": EVENT_BYTES,
                    "opened_in_s": round(each.opened_s, 1),
                    **settings,
                },
                value=statistics.median(each.us),
                unit="µs of CPU an event",
                rounds=options.rounds,
                holds=has_held,
                ceiling=statistics.median(fewest.us) if beside else None,
                ratios=[mine / its for mine, its in zip(each.us, fewest.us, strict=True)] if beside else (),
                cpu_seconds=each.spent[-1][0],
                peak_memory_bytes=each.spent[-1][1],
            )
        )
    return Result("match", cases)


async def _open(serving: Serving, closing: AsyncExitStack, subscriptions: int, say: Say) -> _Crowd:
    server = await closing.enter_async_context(serving.server(f"server-{subscriptions}"))
    assert server.pid is not None
    target = str(server.ready["grpc"])
    streams = -(-subscriptions // _MOST_OF_A_STREAM)
    started = monotonic()
    strangers = await start_clients(
        closing, serving, target, streams,
        connections=_CONNECTIONS, strangers=subscriptions // streams, at_once=10,
    )  # fmt: skip
    await strangers.ready()
    opened_s = monotonic() - started
    matching = await start_clients(closing, serving, target, 1, workspaces=[[WORKSPACE]], report_s=_REPORT_S)
    await matching.ready()
    say(f"match: {subscriptions:,} subscriptions that do not match are open, after {opened_s:.1f} s")
    return _Crowd(subscriptions // streams * streams, server.pid, strangers, matching, opened_s)


async def _round(serving: Serving, crowds: Sequence[_Crowd], options: Options) -> None:
    events, first = options.events, serving.stored
    matching = Clients([program for each in crowds for program in each.matching.programs])
    async with serving.writer(events, prepared=True) as writer:
        await writer.heard("prepared")
        quiet = [each.costs() for each in crowds]
        await asyncio.sleep(options.quiet_s)
        quiet_s = [costs.spent()[0]["server"] for costs in quiet]
        busy = [each.costs() for each in crowds]
        started = monotonic()
        matching.until(first + events)
        matching.on_through(lambda through: writer.tell(through - first + options.window))
        writer.tell(options.window)
        await serving.wrote(writer)
        for each in crowds:
            await each.matching.done()
        # As long as the quiet time, so that as many are told their progress in both.
        await asyncio.sleep(max(0.0, started + options.quiet_s - monotonic()))
        took = monotonic() - started
        for each, costs, idle_s in zip(crowds, busy, quiet_s, strict=True):
            spent, peaks = costs.spent()
            each.spent.append((spent, peaks))
            # Ticks are 10 ms: less cannot be told from nothing.
            cost_s = max(0.01, spent["server"] - idle_s * took / options.quiet_s)
            each.us.append(cost_s / events * 1e6)


async def _holds(serving: Serving, crowd: _Crowd, events: int) -> bool:
    """Whether the one got every event, and the others none."""
    crowd.strangers.until(0)
    crowd.matching.until(serving.stored)
    return (await crowd.matching.done()).holds(events) and (await crowd.strangers.done()).holds(0)
