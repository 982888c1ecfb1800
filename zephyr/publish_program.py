"""A program that publishes as users do: typed events through the Python client, each result looked at.

Run as ``python -m zephyr.publish_program SPEC`` by the harness, which imports no client of ours. It speaks as
``bench.publisher`` does: {"prepared": events}, a line to begin, {"done": what it found}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import uvloop

from protos.models.v1.note_pb2 import Note
from realtime.client import Client, Publication, draft


async def publish(
    target: str, workspace: str, producer: str, events: int, in_flight: int, entities: list[str], title: str
) -> dict[str, Any]:
    """Publishes ``events`` notes with this title, about the entities in turn."""
    last, count = 0, 0
    broken: list[str] = []
    under_way: deque[Publication] = deque()

    def take(publication: Publication) -> None:
        nonlocal last, count
        result = publication.result()
        if result.sequence <= last or not result.cursor:
            broken.append(f"after {last} came {result}")
        last = result.sequence
        count += 1

    async with Client(target) as client, client.publisher(producer, in_flight=in_flight) as publisher:
        say("prepared", events)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter()
        for number in range(events):
            event = draft(
                kind="note",
                entity=entities[number % len(entities)],
                verb="shared",
                workspace=workspace,
                data=Note(title=title),
            )
            under_way.append(await publisher.publish(event))
            while under_way and under_way[0].done:
                take(under_way.popleft())
        await publisher.flush()
        for publication in under_way:
            take(publication)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "events": count, "last": last, "broken": broken, "latencies_ms": []}


def say(name: str, value: object) -> None:
    """Tells who started us."""
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say("done", uvloop.run(publish(**json.loads(sys.argv[1]))))
    sys.stdin.readline()
