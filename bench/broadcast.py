"""The broadcast case of ``zephyr bench publish``: how long until all of many listeners have one.

Broadcasts are due at a steady rate, in an open loop: one that is late counts from when it was due. Each
listener is a stream with a subscription of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from bench.new_event import new_event
from bench.publisher import SERVICE
from bench.result import Case, percentiles
from bench.serving import WORKSPACE, Costs, Serving, open_files
from protos.events.v1 import publish_pb2 as pb

_CONNECTIONS = 100


async def measure_broadcast(
    serving: Serving,
    target: str,
    server_pid: int | None,
    *,
    listeners: int,
    broadcasts: int,
    per_second: float,
    event_bytes: int,
    say: Callable[[str], None],
) -> Case:
    """One case: the p99 over all deliveries.

    Raises:
        BenchError: a listener's stream ended.
    """
    connections = min(_CONNECTIONS, listeners)
    spec = {
        "target": target, "workspace": WORKSPACE, "listeners": listeners,
        "connections": connections, "broadcasts": broadcasts,
    }  # fmt: skip
    with open_files(4096):
        async with serving.program("bench.listener", **spec) as program:
            await program.heard("ready")
            costs = Costs(server=server_pid, nats=serving.broker.pid, client=program.pid)
            await _send(target, broadcasts, per_second, event_bytes)
            heard: dict[str, Any] = await program.heard("done", timeout_s=60)
            spent, peaks = costs.spent()
    found = percentiles(heard["latencies_ms"])
    say(
        f"publish: {broadcasts} broadcasts to {listeners:,} listeners: {heard['events']:,} heard,"
        f" {heard['dropped']:,} dropped: p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms"
    )
    return Case(
        parameters={
            "case": "broadcast",
            "listeners": listeners,
            "connections": connections,
            "broadcasts": broadcasts,
            "broadcasts_per_second": per_second,
            "events": [heard["events"]],
            "dropped": heard["dropped"],
            "event_bytes": event_bytes,
            **serving.settings(),
        },
        value=found["p99"],
        unit="ms (p99)",
        rounds=1,
        holds=heard["fewest"] == heard["most"] == broadcasts,
        cpu_seconds=spent,
        peak_memory_bytes=peaks,
        latency_ms=found,
    )


async def _send(target: str, broadcasts: int, per_second: float, event_bytes: int) -> None:
    """Sends each when it is due, and waits for no answer before the next."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        send: Any = channel.unary_unary(
            f"{SERVICE}Broadcast",
            request_serializer=pb.BroadcastRequest.SerializeToString,
            response_deserializer=pb.BroadcastResponse.FromString,
        )
        await channel.channel_ready()
        began, began_at = loop.time(), time.time()
        for number in range(broadcasts):
            due_s = number / per_second
            await asyncio.sleep(max(0.0, began + due_s - loop.time()))
            event = new_event(WORKSPACE, number, event_bytes)
            event.time = int((began_at + due_s) * 1e6)
            tasks.create_task(_sent(send, event))


async def _sent(send: Any, event: pb.NewEvent) -> None:
    await send(pb.BroadcastRequest(event=event), timeout=10)
