"""Listeners of broadcasts: some streams on some connections, each with one live subscription that wants them.

Run as ``python -m bench.listener SPEC``. It says {"ready": streams} when all are at the live edge, and {"done":
what it found} when each of them was given, or told that it missed, all of ``broadcasts``. Each event bears
the time at which it was due; its latency is that from then until it is parsed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import uvloop

from protos.events.v1 import stream_pb2 as pb

METHOD = "/zephyr.events.v1.StreamService/Subscribe"
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Spec:
    """``listeners`` of one workspace."""

    target: str
    workspace: str
    listeners: int
    connections: int
    broadcasts: int


@dataclass(slots=True)
class Heard:
    """What all listeners were given; ``fewest`` and ``most`` of one, those that it was told to have missed included."""

    events: int = 0
    dropped: int = 0
    fewest: int = 0
    most: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Listeners:
    """All of the program."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._heard = Heard()
        self._counts = [0] * spec.listeners
        self._unready = self._left = spec.listeners
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Listens until each has heard all."""
        spec = self._spec
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(spec.target, options=options) for _ in range(spec.connections)]
        tasks = [
            asyncio.create_task(self._listen(channels[number % len(channels)], number))
            for number in range(spec.listeners)
        ]
        ending = asyncio.create_task(self._done.wait())
        try:
            finished, _ = await asyncio.wait((ending, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()  # a stream that ended before says why
            if not self._done.is_set():
                raise SystemExit("error: the server ended a stream")
            self._heard.fewest, self._heard.most = min(self._counts), max(self._counts)
            say("done", asdict(self._heard))
        finally:
            for task in (ending, *tasks):
                task.cancel()
            await asyncio.gather(ending, *tasks, return_exceptions=True)

    async def _listen(self, channel: grpc.aio.Channel, number: int) -> None:
        subscribe: Any = channel.stream_stream(
            METHOD,
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=pb.SubscribeResponse.FromString,
        )
        await self._opening.acquire()
        call = subscribe()
        wanted = pb.OpenSubscription(subscription_id="s", broadcasts=True)
        wanted.filter.workspace_ids.append(self._spec.workspace)
        await call.write(pb.SubscribeRequest(open=wanted))
        is_ready = False
        while (frame := await call.read()) is not grpc.aio.EOF:
            if frame.HasField("caught_up") and not is_ready:
                is_ready = True
                self._opening.release()
                self._unready -= 1
                if not self._unready:
                    say("ready", self._spec.listeners)
            elif frame.HasField("broadcasts"):
                self._take(frame.broadcasts, number)
            elif frame.HasField("closed"):
                raise SystemExit(f"error: a subscription was closed: {frame.closed.error.message}")

    def _take(self, frame: pb.Broadcasts, number: int) -> None:
        now_ms = time.time() * 1e3
        heard = self._heard
        heard.latencies_ms += [now_ms - event.time / 1e3 for event in frame.events]
        heard.events += len(frame.events)
        heard.dropped += frame.dropped
        before = self._counts[number]
        self._counts[number] = after = before + len(frame.events) + frame.dropped
        if before < self._spec.broadcasts <= after:
            self._left -= 1
            if not self._left:
                self._done.set()


def say(name: str, value: object) -> None:
    """Tells who started us."""
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


async def main(spec: Spec) -> None:
    """Listens, then waits until who started us has read what we cost."""
    await Listeners(spec).run()
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    uvloop.run(main(Spec(**json.loads(sys.argv[1]))))
