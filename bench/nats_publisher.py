"""What publishing stands beside: nats-py's own, with as many in flight, into the same sort of stream.

Run as ``python -m bench.nats_publisher SPEC``, as ``bench.publisher`` is. The messages are of the same
subjects and sizes, without headers, which is what nats-py does fastest: neither checked nor told apart from
a repetition. With ``single`` each is acknowledged before the next one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import nats
import uvloop

from bench.new_event import ENTITIES, new_event, subject
from bench.publisher import Done, Spec, say


async def publish(spec: Spec, stream: Any) -> Done:
    """Publishes all; each acknowledgement must stand behind the one before."""
    done = Done()
    made = [
        (
            subject(spec.workspace, each),
            new_event(spec.workspace, each, spec.size).SerializeToString(),
        )
        for each in range(ENTITIES)
    ]
    say("prepared", spec.events)
    await asyncio.to_thread(sys.stdin.readline)
    under_way: deque[Any] = deque()
    began = time.perf_counter()
    for number in range(spec.events):
        place, payload = made[number % ENTITIES]
        start = time.perf_counter()
        if spec.single:
            _take(await stream.publish(place, payload), done)
            done.latencies_ms.append((time.perf_counter() - start) * 1000)
        else:
            under_way.append(await stream.publish_async(place, payload))
            while under_way and under_way[0].done():
                _take(under_way.popleft().result(), done)
    for future in under_way:
        _take(await future, done)
    done.seconds = time.perf_counter() - began
    return done


def _take(ack: Any, done: Done) -> None:
    if ack.seq <= done.last:
        done.broken.append(f"after {done.last} came {ack.seq}")
    done.last = ack.seq
    done.events += 1


async def main(spec: Spec) -> None:
    """Prepares, waits until it is told, publishes."""
    connection = await nats.connect(spec.target, allow_reconnect=False)
    try:
        done = await publish(spec, connection.jetstream(publish_async_max_pending=spec.in_flight))
        say("done", {name: getattr(done, name) for name in done.__slots__})
        await asyncio.to_thread(sys.stdin.readline)
    finally:
        await connection.close()


if __name__ == "__main__":
    uvloop.run(main(Spec(**json.loads(sys.argv[1]))))
