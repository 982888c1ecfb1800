"""The least that a server behind this broker could do: a bare relay from a push consumer to bare gRPC streams.

Run as ``python -m bench.relay SPEC``. It reads what is stored from now on from a bare socket, takes
the payload out of each message, joins what waits into frames of up to 128 KiB, each frame once for
all STREAMS that are at the same place, and writes them. It has no filter, no cursor, no coverage, no
transactions, checks nothing and keeps all. Each stream gets GREETING first. Says {"port": number}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import uvloop

from bench.handler import METHOD, OPTIONS, SERVICE
from protos.wire import delimited, delimited_header

FRAME_BYTES = 128 * 1024
CACHED_FRAMES = 8
INBOX = "_INBOX.zephyr-bench-relay"
NAME, EVENTS, EVENT, INNER = delimited(1, b"s0"), 5, 1, 3
CONFIG = {
    "deliver_subject": INBOX, "deliver_policy": "new", "ack_policy": "none", "max_deliver": 1,
    "mem_storage": True, "num_replicas": 1, "flow_control": True, "idle_heartbeat": 5_000_000_000,
}  # fmt: skip


class Relay(asyncio.Protocol):
    """The connection to the broker, and what came over it."""

    def __init__(self, stream: str) -> None:
        body = json.dumps({"stream_name": stream, "config": CONFIG})
        self.hello = (
            'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n'
            f"SUB {INBOX} 1\r\nSUB {INBOX}-answer 2\r\n"
            f"PUB $JS.API.CONSUMER.CREATE.{stream} {INBOX}-answer {len(body)}\r\n{body}\r\n".encode()
        )
        self.tail = b""
        self.events: list[bytes] = []
        self.frames: dict[int, tuple[bytes, int]] = {}
        self.news, self.is_consuming = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.hello)

    def connection_lost(self, _: Exception | None) -> None:
        raise SystemExit("error: the broker went away")

    def data_received(self, data: bytes) -> None:
        data, at = self.tail + data, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].split()
            after = end + 2
            if words[0] in (b"HMSG", b"MSG"):
                begin, after = after, after + int(words[-1]) + 2
                if after > len(data):
                    break
                has_headers = words[0] == b"HMSG"
                reply = words[3] if len(words) == (6 if has_headers else 5) else b""
                if reply.startswith(b"$JS.ACK."):
                    payload = data[begin + int(words[-2]) : after - 2]
                    event = delimited_header(INNER, len(payload)) + payload
                    self.events.append(delimited_header(EVENT, len(event)) + event)
                elif reply:  # flow control: the broker goes on when it is answered
                    self.transport.write(b"PUB " + reply + b" 0\r\n\r\n")
                elif words[1].endswith(b"-answer"):
                    self.is_consuming.set()
            elif words[0] == b"PING":
                self.transport.write(b"PONG\r\n")
            elif words[0] == b"-ERR":
                raise SystemExit(f"error: the broker said {words}")
            at = after
        self.tail = data[at:]
        self.news.set()
        self.news = asyncio.Event()

    def frame(self, place: int) -> tuple[bytes, int]:
        """The frame that begins at a place, and where the next one does."""
        if place not in self.frames:
            size, end = 0, place
            while end < len(self.events) and size < FRAME_BYTES:
                size += len(self.events[end])
                end += 1
            body = self.events[place:end]
            if len(self.frames) >= CACHED_FRAMES:
                self.frames.clear()
            self.frames[place] = b"".join((NAME, delimited_header(EVENTS, size), *body)), end
        return self.frames[place]


async def serve(host: str, port: int, stream: str, greeting: bytes) -> None:
    """Serves until standard input ends."""
    loop = asyncio.get_running_loop()
    _, relay = await loop.create_connection(lambda: Relay(stream), host, port)
    await relay.is_consuming.wait()

    async def subscribe(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.read()
        place = len(relay.events)
        await context.write(greeting)
        while True:
            while place == len(relay.events):
                await relay.news.wait()
            frame, place = relay.frame(place)
            await context.write(frame)

    method: Any = grpc.stream_stream_rpc_method_handler(subscribe)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    bound = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(json.dumps({"port": bound}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    uvloop.run(serve(**spec | {"greeting": bytes.fromhex(spec["greeting"])}))
