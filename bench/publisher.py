"""The cheapest client that publishes correctly: events are bytes, results are read in theirs.

Run as ``python -m bench.publisher SPEC``. It makes the events first and says {"prepared": events}. Told a
line, it publishes them on one stream, never more than ``in_flight`` without a result, and says {"done": the
seconds, the last cursor's place, and what was not as it must be}. Each result must be of the event that is
due, and have its cursor. With ``single`` it calls Publish for one after the other and keeps each time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop

from bench.new_event import ENTITIES, new_event
from protos.events.v1 import publish_pb2 as pb
from protos.wire import varint

SERVICE = "/zephyr.events.v1.PublisherService/"
REQUEST_EVENTS = 1000
_OPTIONS = (("grpc.max_receive_message_length", 16 * 1024 * 1024),)
_RESULTS_TAG = pb.PublishStreamResponse.RESULTS_FIELD_NUMBER << 3 | 2
_STORED_TAG = pb.PublishResult.STORED_FIELD_NUMBER << 3 | 2
_CURSOR_TAG = pb.Stored.CURSOR_FIELD_NUMBER << 3 | 2


@dataclass(frozen=True, slots=True)
class Spec:
    """``events`` of ``size`` bytes each, as ``producer``."""

    target: str
    workspace: str
    producer: str
    events: int
    size: int = 250
    in_flight: int = 4000
    single: bool = False


@dataclass(slots=True)
class Done:
    """``last`` is the place of the last event in the stream."""

    seconds: float = 0.0
    events: int = 0
    last: int = 0
    broken: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


class Publisher:
    """Of one stream."""

    def __init__(self, spec: Spec, call: Any) -> None:
        self._spec = spec
        self._call = call
        self._made = [
            new_event(spec.workspace, each, spec.size).SerializeToString() for each in range(ENTITIES)
        ]
        self._room = asyncio.Event()
        self._window = spec.in_flight
        self._sent = 0
        self._done = Done()

    async def open(self) -> None:
        """Begins the session."""
        await self._call.write(
            pb.PublishStreamRequest(open=pb.OpenProducer(producer_id=self._spec.producer)).SerializeToString()
        )
        opened = pb.PublishStreamResponse.FromString(await self._call.read()).opened
        self._window = min(self._spec.in_flight, opened.window.events)

    async def run(self) -> Done:
        """Publishes all."""
        began = time.perf_counter()
        writing = asyncio.create_task(self._write())
        try:
            while self._done.events < self._spec.events and not self._done.broken:
                self._take(await self._call.read())
                self._room.set()
        finally:
            writing.cancel()
        self._done.seconds = time.perf_counter() - began
        return self._done

    async def _write(self) -> None:
        made, spec = self._made, self._spec
        while self._sent < spec.events:
            count = min(
                spec.events - self._sent, self._window - self._sent + self._done.events, REQUEST_EVENTS
            )
            if count <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            parts: list[bytes] = []
            size = 0
            for sequence in range(self._sent + 1, self._sent + count + 1):
                event = made[sequence % ENTITIES]
                head = b"\x08" + varint(sequence) + b"\x12" + varint(len(event))
                parts += (b"\x0a", varint(len(head) + len(event)), head, event)
            size = sum(map(len, parts))
            self._sent += count
            await self._call.write(b"".join((b"\x12", varint(size), *parts)))

    def _take(self, data: bytes) -> None:
        """Reads results in their bytes: the sequence that is due, and a place with its cursor."""
        if not isinstance(data, bytes):
            self._done.broken.append("the server ended the stream")
            return
        if data[0] != _RESULTS_TAG:
            response = pb.PublishStreamResponse.FromString(data)
            if response.WhichOneof("response") == "window":
                self._window = min(self._spec.in_flight, response.window.events)
            else:
                self._done.broken.append(str(response))
            return
        _, at = number_at(data, 1)
        end, due, result = len(data), self._done.events, 0
        while at < end:
            result = at
            size, at = number_at(data, at + 1)
            sequence, place = number_at(data, at + 1)
            due += 1
            has_place = data[place] == _STORED_TAG
            _, place = number_at(data, place + 1)
            if sequence != due or not has_place or data[place] != _CURSOR_TAG:
                self._done.broken.append(str(pb.PublishResult.FromString(data[at : at + size])))
                return
            at += size
        self._done.events = due
        if due == self._spec.events:
            last = pb.PublishResults.FromString(data[result:]).results[0]
            self._done.last = last.stored.sequence


async def one_by_one(spec: Spec, channel: grpc.aio.Channel) -> Done:
    """Calls Publish for one after the other."""
    publish: Any = channel.unary_unary(
        f"{SERVICE}Publish",
        request_serializer=pb.PublishRequest.SerializeToString,
        response_deserializer=pb.PublishResponse.FromString,
    )
    done = Done()
    began = time.perf_counter()
    for number in range(spec.events):
        request = pb.PublishRequest(
            event=new_event(spec.workspace, number, spec.size), request_id=f"{spec.producer}-{number}"
        )
        start = time.perf_counter()
        stored = (await publish(request)).stored
        done.latencies_ms.append((time.perf_counter() - start) * 1000)
        if stored.sequence <= done.last or not stored.cursor:
            done.broken.append(f"after {done.last} came {stored}")
        done.last = stored.sequence
        done.events += 1
    done.seconds = time.perf_counter() - began
    return done


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """The number that stands there, and where it ends."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


async def main(spec: Spec) -> None:
    """Prepares, waits until it is told, publishes."""
    async with grpc.aio.insecure_channel(spec.target, options=_OPTIONS) as channel:
        publisher = None
        if not spec.single:
            publisher = Publisher(spec, channel.stream_stream(f"{SERVICE}PublishStream")())
            await publisher.open()
        say("prepared", spec.events)
        await asyncio.to_thread(sys.stdin.readline)
        done = await (publisher.run() if publisher is not None else one_by_one(spec, channel))
        say("done", {name: getattr(done, name) for name in done.__slots__})
        await asyncio.to_thread(sys.stdin.readline)  # whoever started us reads what we cost


def say(name: str, value: object) -> None:
    """Tells who started us."""
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(Spec(**json.loads(sys.argv[1]))))
