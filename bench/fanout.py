"""``zephyr bench fanout``: deliveries a second to many subscribers, beside a bare gRPC handler.

Subscribers of one workspace are at the live edge. Events are written as fast as all of them
take them: never more than a window ahead of the slowest, so that the server is always busy
and nobody falls behind. The frames of one subscriber are recorded; the handler then writes
these very frames to as many streams of the same client program. The two take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import start_clients
from bench.result import Case, Result
from bench.rounds import Round, case_of
from bench.serving import WORKSPACE, Costs, Serving, open_files, open_serving
from bench.writer import EVENT_BYTES

Say = Callable[[str], None]

CLIENTS = ("skim", "typed")
_REPORT_S = 0.005


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how much of it: ``deliveries`` in each round, of at most ``events``."""

    subscribers: Sequence[int] = (1, 10, 100, 1000)
    clients: Sequence[str] = CLIENTS
    deliveries: int = 5_000_000
    events: int = 200_000
    window: int = 2000
    processes: int = 1
    rounds: int = 3


async def measure_fanout(folder: Path, options: Options, say: Say) -> Result:
    """A case for each number of subscribers and each sort of client.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    result = Result("fanout")
    with open_files(4096):
        for subscribers in options.subscribers:
            for how in options.clients:
                async with open_serving(folder / f"{how}-{subscribers}") as serving:
                    result.cases.append(await _measure(serving, subscribers, how, options, say))
    return result


async def _measure(serving: Serving, subscribers: int, how: str, options: Options, say: Say) -> Case:
    events = max(10, min(options.events, options.deliveries // subscribers))
    done: list[Round] = []
    fell_behind = 0
    async with serving.server() as server:
        for number in range(1, options.rounds + 1):
            work = _Work(serving, str(server.ready["grpc"]), server.pid, subscribers, how, events, options)
            each = await work.round()
            fell_behind += work.fell_behind
            done.append(each)
            say(
                f"fanout: {subscribers} {how} subscribers, round {number}/{options.rounds}:"
                f" {each.events:,} of {events * subscribers:,} deliveries, {each.per_s:,.0f}/s;"
                f" bare handler {each.ceiling_per_s:,.0f}/s"
            )
    parameters = {
        "case": "fanout",
        "subscribers": subscribers,
        "client": how,
        "client_processes": min(options.processes, subscribers),
        "events_per_round": events,
        "event_bytes": EVENT_BYTES,
        "window_events": options.window,
        "fell_behind": fell_behind,
        **serving.settings(),
    }
    return case_of(parameters, done, "deliveries/s")


@dataclass(slots=True)
class _Work:
    """One round: the server, then the handler, to the same clients."""

    serving: Serving
    target: str
    server_pid: int | None
    subscribers: int
    how: str
    events: int
    options: Options
    fell_behind: int = 0
    greeting: int = 0

    @property
    def _frames(self) -> str:
        return str(self.serving.folder / "frames")

    async def round(self) -> Round:
        first = self.serving.stored
        async with AsyncExitStack() as closing:
            clients = await start_clients(
                closing, self.serving, self.target, self.subscribers, self.options.processes,
                record=self._frames, **self._spec(),
            )  # fmt: skip
            writer = await closing.enter_async_context(self.serving.writer(self.events, prepared=True))
            await writer.heard("prepared")
            await clients.ready()
            clients.until(first + self.events)
            clients.on_through(lambda through: writer.tell(through - first + self.options.window))
            costs = Costs(
                server=self.server_pid, nats=self.serving.broker.pid, writer=writer.pid, **clients.pids
            )
            writer.tell(self.options.window)
            await self.serving.wrote(writer)
            found = await clients.done()
            spent, peaks = costs.spent()
        self.fell_behind, self.greeting = found.falls, found.greeting
        ceiling = await self._ceiling(first + self.events)
        return Round(
            events=found.events,
            holds=found.holds(self.events),
            per_s=found.events / found.seconds,
            ceiling_per_s=ceiling,
            cpu_seconds=spent,
            peak_memory_bytes=peaks,
        )

    async def _ceiling(self, last: int) -> float:
        """The recorded frames, written by the handler: deliveries a second."""
        async with AsyncExitStack() as closing:
            given = {"frames": self._frames, "greeting": self.greeting, "streams": self.subscribers}
            handler = await closing.enter_async_context(self.serving.program("bench.handler", **given))
            target = f"127.0.0.1:{await handler.heard('port')}"
            clients = await start_clients(
                closing, self.serving, target, self.subscribers, self.options.processes, **self._spec()
            )
            clients.until(last)
            found = await clients.done()
            return found.events / found.seconds

    def _spec(self) -> dict[str, Any]:
        return {"how": self.how, "workspaces": [[WORKSPACE]], "report_s": _REPORT_S}
