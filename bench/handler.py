"""The ceiling of what the server sends: a bare gRPC handler that writes frames which are bytes already.

Run as ``python -m bench.handler SPEC``. FRAMES were recorded from Zephyr's server, each behind its
length in four bytes; the first GREETING of them go to each stream at once, and the rest, at full
speed, when all STREAMS are open. Same loop, same options, same method as the server's; nothing
is matched, queued or encoded. Says {"port": number}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

SERVICE, METHOD = "zephyr.events.v1.StreamService", "Subscribe"
OPTIONS = (("grpc.max_send_message_length", 10 * 1024 * 1024), ("grpc.so_reuseport", 0))


async def serve(frames: list[bytes], greeting: int, streams: int) -> None:
    """Serves until standard input ends."""
    opened, all_open = 0, asyncio.Event()

    async def subscribe(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        nonlocal opened
        await context.read()
        for frame in frames[:greeting]:
            await context.write(frame)
        opened += 1
        if opened >= streams:
            all_open.set()
        await all_open.wait()
        for frame in frames[greeting:]:
            await context.write(frame)
        await context.read()

    method: Any = grpc.stream_stream_rpc_method_handler(subscribe)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    data, frames, at = Path(spec["frames"]).read_bytes(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    uvloop.run(serve(frames, spec["greeting"], spec["streams"]))
