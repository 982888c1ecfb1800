"""``zephyr bench fanout``: deliveries a second to many subscribers, beside a bare gRPC handler.

Subscribers of one workspace are at the live edge. Events are written as fast as all of them
take them: never more than a window ahead of the slowest, so that the server is always busy
and nobody falls behind. The frames of one subscriber are recorded; the handler then writes
these very frames to as many streams of the same client program. That is what gRPC costs. What the
broker costs as well, the relay shows: it reads the same stream at the same pace. All take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import Clients, Found, start_clients
from bench.result import Case, Result
from bench.rounds import Round, case_of
from bench.serving import STREAM, WORKSPACE, Costs, Serving, open_files, open_serving
from bench.writer import EVENT_BYTES
from protos.events.v1.stream_pb2 import CaughtUp, SubscribeResponse

Say = Callable[[str], None]

CLIENTS = ("skim", "typed")
BARE_HANDLER, BARE_RELAY = "bare handler", "bare relay"
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
    """Two cases for each number of subscribers and each sort of client: beside the handler and the relay.

    Raises:
        BenchError, StackError: a figure cannot be taken.
    """
    result = Result("fanout")
    with open_files(4096):
        for subscribers in options.subscribers:
            for how in options.clients:
                async with open_serving(folder / f"{how}-{subscribers}") as serving:
                    result.cases.extend(await _measure(serving, subscribers, how, options, say))
    return result


async def _measure(serving: Serving, subscribers: int, how: str, options: Options, say: Say) -> list[Case]:
    events = max(10, min(options.events, options.deliveries // subscribers))
    done: dict[str, list[Round]] = {BARE_HANDLER: [], BARE_RELAY: []}
    fell_behind, relay_cpu_seconds = 0, []
    for number in range(1, options.rounds + 1):
        work = _Work(serving, subscribers, how, events, options)
        # The server is not there while others are measured: it would read what is written for them.
        async with serving.server() as server:
            found, spent, peaks = await work.server(str(server.ready["grpc"]), server.pid)
        bare = {BARE_HANDLER: await work.handler(found.greeting), BARE_RELAY: await work.relay()}
        fell_behind += found.falls
        relay_cpu_seconds.append(work.relay_cpu_seconds)
        for name, other in bare.items():
            holds = found.holds(events) and other.holds(events)
            done[name].append(Round(found.events, holds, found.per_s, other.per_s, spent, peaks))
        say(
            f"fanout: {subscribers} {how} subscribers, round {number}/{options.rounds}:"
            f" {found.events:,} of {events * subscribers:,} deliveries, {found.per_s:,.0f}/s;"
            + ";".join(f" {name} {other.per_s:,.0f}/s" for name, other in bare.items())
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
    more: dict[str, dict[str, object]] = {BARE_RELAY: {"relay_cpu_seconds": relay_cpu_seconds}}
    return [
        case_of({**parameters, "beside": name, **more.get(name, {})}, rounds, "deliveries/s")
        for name, rounds in done.items()
    ]


@dataclass(slots=True)
class _Work:
    """One round: the server, the handler and the relay, each to the same clients."""

    serving: Serving
    subscribers: int
    how: str
    events: int
    options: Options
    relay_cpu_seconds: float = 0.0

    @property
    def _frames(self) -> str:
        return str(self.serving.folder / "frames")

    async def server(self, target: str, pid: int | None) -> tuple[Found, dict[str, float], dict[str, int]]:
        """What the clients found, and what it cost."""
        async with AsyncExitStack() as closing:
            return await self._live(closing, target, {"server": pid}, record=self._frames)

    async def handler(self, greeting: int) -> Found:
        """The recorded frames, written by the handler."""
        async with AsyncExitStack() as closing:
            given = {"frames": self._frames, "greeting": greeting, "streams": self.subscribers}
            handler = await closing.enter_async_context(self.serving.program("bench.handler", **given))
            clients = await self._clients(closing, f"127.0.0.1:{await handler.heard('port')}")
            clients.until(self.serving.stored)
            return await clients.done()

    async def relay(self) -> Found:
        """As many events again, relayed."""
        greeting = SubscribeResponse(subscription_id="s0", caught_up=CaughtUp())
        greeting.coverage.after = greeting.coverage.through = self.serving.stored
        host, port = self.serving.broker.address
        given = {"host": host, "port": port, "stream": STREAM, "greeting": greeting.SerializeToString().hex()}
        async with AsyncExitStack() as closing:
            relay = await closing.enter_async_context(self.serving.program("bench.relay", **given))
            target = f"127.0.0.1:{await relay.heard('port')}"
            found, spent, _ = await self._live(closing, target, {"relay": relay.pid}, is_bare=True)
            self.relay_cpu_seconds = spent["relay"]
            return found

    async def _live(
        self, closing: AsyncExitStack, target: str, served: Mapping[str, int | None], **spec: Any
    ) -> tuple[Found, dict[str, float], dict[str, int]]:
        """Events are written as fast as all clients take them."""
        first = self.serving.stored
        clients = await self._clients(closing, target, **spec)
        writer = await closing.enter_async_context(self.serving.writer(self.events, prepared=True))
        await writer.heard("prepared")
        await clients.ready()
        clients.until(first + self.events)
        clients.on_through(lambda through: writer.tell(through - first + self.options.window))
        costs = Costs(**served, nats=self.serving.broker.pid, writer=writer.pid, **clients.pids)
        writer.tell(self.options.window)
        await self.serving.wrote(writer)
        found = await clients.done()
        return found, *costs.spent()

    async def _clients(self, closing: AsyncExitStack, target: str, **spec: Any) -> Clients:
        return await start_clients(
            closing, self.serving, target, self.subscribers, self.options.processes,
            how=self.how, workspaces=[[WORKSPACE]], report_s=_REPORT_S, **spec,
        )  # fmt: skip
