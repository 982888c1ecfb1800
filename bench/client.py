"""A client program: some streams on some connections, every frame checked against the one before.

Run as ``python -m bench.client SPEC``; started by ``program.py``. It says {"ready": streams} when
all of its subscriptions are at the live edge (again, after they were interrupted), and, once it
is told {"until": sequence} and everything up to there was accounted for, {"done": what it found}
(each time it is told).
With ``report_s`` it says {"through": sequence} meanwhile: what all of them have. One that ``repeats``
begins anew each time it got there, and says {"pass": events of it}.

It knows nothing of who serves it: Zephyr's server, or the handler that it is measured against.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.run import Run
from bench.skim import CAUGHT_UP, CLOSED, EVENTS, FELL_BEHIND, RESET, Skimmed, skim
from protos.events.v1.stream_pb2 import EarliestStart, Start, SubscribeResponse

METHOD = "/zephyr.events.v1.StreamService/Subscribe"
HOW = ("skim", "typed", "timed", "arrivals")
_RETRY_S = 1.0
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)
# The smallest pause is also what a connection may take to come about: who does not come back has more time.
_RESUMING = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class Spec:
    """``how``: frames are skimmed (counted in their bytes), or typed, or of typed events the time since
    their own is kept (timed), or when each entity's arrived (arrivals). Workspaces are those of a stream's
    subscriptions, one each; empty: all events. Who ``is_bare`` is served by the relay, whose frames
    say of themselves nothing: their events are counted, and that is all. With ``strangers`` a stream has so many subscriptions instead,
    each of another workspace of which no event is."""

    target: str
    streams: int = 1
    connections: int = 1
    workspaces: Sequence[Sequence[str]] = (("",),)
    strangers: int = 0
    how: str = "skim"
    is_earliest: bool = False
    resumes: bool = False
    repeats: bool = False
    at_once: int = 100
    report_s: float = 0.0
    record: str = ""
    is_bare: bool = False


@dataclass(slots=True)
class Found:
    """What all subscriptions came to. Times are of the machine's monotonic clock; ``broken`` says what did not
    join, or was not what it said."""

    events: int = 0
    frames: int = 0
    bytes: int = 0
    falls: int = 0
    broken: list[str] = field(default_factory=list)
    first_at: float = 0.0
    last_at: float = 0.0
    fewest: int = 0
    most: int = 0
    greeting: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    arrivals: dict[str, float] = field(default_factory=dict)


class Client:
    """All streams of the program."""

    def __init__(self, spec: Spec) -> None:
        self.found = Found()
        self._spec = spec
        self._start = Start(earliest=EarliestStart()) if spec.is_earliest else Start()
        self._runs: list[Run] = []
        self._unready = 0
        self._until: int | None = None
        self._left = 0
        self._recorded: list[bytes] = []
        self._opening = asyncio.Semaphore(spec.at_once)
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Follows all streams until what was asked for is there."""
        spec = self._spec
        options = _OPTIONS + _RESUMING if spec.resumes else _OPTIONS
        channels = [grpc.aio.insecure_channel(spec.target, options=options) for _ in range(spec.connections)]
        async with asyncio.TaskGroup() as tasks:
            for number in range(spec.streams):
                mine: Sequence[str] = spec.workspaces[number % len(spec.workspaces)]
                if spec.strangers:
                    mine = [str(uuid.uuid4()) for _ in range(spec.strangers)]
                # One name for all: the frames of one stream can be served to another.
                runs = [Run(f"s{place}".encode(), workspace) for place, workspace in enumerate(mine)]
                self._runs += runs
                self._unready += len(runs)
                stream = self._follow(channels[number % len(channels)], runs, number == 0)
                tasks.create_task(stream)
            tasks.create_task(self._listen())
            if spec.report_s:
                tasks.create_task(self._report())
            while True:  # whoever started us reads what we cost, asks for more or ends us
                await self._done.wait()
                self._done.clear()
                self._say_done()

    async def _follow(self, channel: grpc.aio.Channel, runs: list[Run], is_first: bool) -> None:
        subscribe: Any = channel.stream_stream(METHOD)
        records = is_first and bool(self._spec.record)
        while True:
            # A call begins when it is made: so many at once, or the server refuses some of them.
            await self._opening.acquire()
            call = subscribe()
            try:
                await self._once(call, runs, records)
                if self._spec.repeats and self._is_through(runs):
                    call.cancel()
                    self._begin_anew(runs)
                    continue
                problem = "the server ended a stream"
            except (
                grpc.aio.AioRpcError,
                asyncio.InvalidStateError,
            ):  # the latter when it failed before a write
                problem = f"a stream failed: {(await call.code()).name}: {await call.details()}"
            if not self._spec.resumes:
                raise SystemExit(f"error: {problem}")
            sys.stderr.write(f"{problem}\n")
            for run in runs:
                self._unready += run.is_ready
                run.is_ready = False
            await asyncio.sleep(random.uniform(0, _RETRY_S))

    async def _once(self, call: Any, runs: list[Run], records: bool) -> None:
        """One call, up to its end. Lets others open theirs when its subscriptions are at the live edge."""
        by_name = {run.name: run for run in runs}
        try:
            for run in runs:
                await call.write(run.open(self._start))
            while any(not run.is_ready for run in runs):
                frame = await call.read()
                if frame is grpc.aio.EOF:
                    return
                if records:
                    self._recorded.append(frame)
                    self.found.greeting += 1
                self._take(frame, by_name)
        finally:
            self._opening.release()
        while (frame := await call.read()) is not grpc.aio.EOF:
            if records:
                self._recorded.append(frame)
            self._take(frame, by_name)
            if self._spec.repeats and self._is_through(runs):
                return

    def _is_through(self, runs: list[Run]) -> bool:
        return self._until is not None and all(run.through >= (self._until or 0) for run in runs)

    def _begin_anew(self, runs: list[Run]) -> None:
        say("pass", sum(run.events for run in runs))
        for run in runs:
            if run.events != run.through - run.began:
                self.found.broken.append(f"{run.events} events from {run.began} to {run.through}")
            run.through, run.events, run.cursor, run.is_ready = -1, 0, b"", False
            self._unready += 1
        if self.found.broken:
            raise SystemExit(f"error: {self.found.broken[0]}")

    def _take(self, frame: bytes, runs: dict[bytes, Run]) -> None:
        seen = skim(frame) if self._spec.how == "skim" else self._read(frame)
        found = self.found
        run = runs.get(seen.name)
        if self._spec.is_bare and run is not None and seen.kind == EVENTS:
            seen = seen._replace(after=run.through, through=run.through + seen.events, matched=seen.events)
        if not seen.name and seen.kind not in (RESET, CLOSED):
            return  # it concerns the whole stream
        if run is None or seen.kind in (RESET, CLOSED):
            raise SystemExit(
                f"error: the server said {SubscribeResponse.FromString(frame)}".replace("\n", " ")
            )
        if seen.after != run.through and run.through >= 0:
            found.broken.append(f"after {run.through} came a frame after {seen.after}")
        if seen.events != seen.matched:
            found.broken.append(f"a frame says {seen.matched} events and has {seen.events}")
        has_arrived = self._until is not None and run.through < self._until <= seen.through
        if run.through < 0:
            run.began = seen.after
        run.through, run.cursor = seen.through, seen.cursor
        if seen.kind == EVENTS:
            now = time.monotonic()
            found.first_at = found.first_at or now
            found.last_at = now
            found.events += seen.events
            found.frames += 1
            found.bytes += len(frame)
            run.events += seen.events
        elif seen.kind == FELL_BEHIND:
            found.falls += 1
        if not run.is_ready and (seen.kind == CAUGHT_UP or self._spec.is_earliest):
            run.is_ready = True
            self._unready -= 1
            if not self._unready:
                say("ready", time.monotonic())
        if has_arrived:
            self._left -= 1
            if not self._left and not self._spec.repeats:
                self._done.set()

    def _read(self, frame: bytes) -> Skimmed:
        """The frame as a message, each event touched."""
        response = SubscribeResponse.FromString(frame)
        now, how, found = time.time(), self._spec.how, self.found
        events = 0
        for streamed in response.events.events:
            event = streamed.event
            events += (streamed.sequence > 0 or self._spec.is_bare) and event.type != "" and event.id != ""
            if how == "timed":
                found.latencies_ms.append(now * 1e3 - event.time / 1e3)
            elif how == "arrivals":
                found.arrivals[event.subject] = now
        coverage = response.coverage
        kind = response.WhichOneof("response")
        return Skimmed(
            response.subscription_id.encode(),
            response.cursor,
            coverage.after,
            coverage.through,
            coverage.matched,
            SubscribeResponse.DESCRIPTOR.fields_by_name[kind].number if kind else 0,
            events,
        )

    def _through(self) -> int:
        return min([run.through for run in self._runs])

    async def _report(self) -> None:
        told = -1
        while True:
            through = self._through()
            if through != told:  # less, when it began anew
                say("through", through)
                told = through
            await asyncio.sleep(self._spec.report_s)

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            self._until = until = int(json.loads(line)["until"])
            self._left = sum(run.through < until for run in self._runs)
            if not self._left and not self._spec.repeats:
                self._done.set()
        raise SystemExit  # whoever started us is gone

    def _say_done(self) -> None:
        counts = [run.events for run in self._runs]
        self.found.fewest, self.found.most = min(counts), max(counts)
        if self._recorded:
            with Path(self._spec.record).open("wb") as file:
                file.writelines(len(frame).to_bytes(4, "big") + frame for frame in self._recorded)
        say("done", asdict(self.found))


def say(name: str, value: object) -> None:
    """Tells who started us."""
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(Client(Spec(**json.loads(sys.argv[1]))).run())
