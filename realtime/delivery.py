"""What a consumer delivers, in order and without a gap, or not at all.

An ephemeral push consumer without acknowledgements numbers its deliveries: a number that is
not the next one, a heartbeat that names another last one, or silence ends the delivery.

Source: the NATS documentation, "JetStream consumers" (heartbeats, flow control, ordered
consumers).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from realtime.entry import Entry
from realtime.errors import RealtimeError, SourceUnavailable
from realtime.jetstream import StreamReader, delivered_entry

_HEARTBEAT_S = 1.0
_SILENCE_S = 3.5
LATE_S = 1.5
"""A heartbeat that has not come by then is late: the consumer may be gone, or what lies between."""
_PENDING_BYTES = 64 * 1024 * 1024
_DELIVERED = "$JS.ACK."
"""How the reply subject of a stored message begins; the consumer's own words have another, or none."""


class Delivery:
    """What a consumer has delivered and nobody has taken yet, checked for gaps.

    The broker's flow control bounds it: it sends on only when a mark among the messages was answered.
    """

    def __init__(self, connection: NatsClient, epoch: str) -> None:
        self._connection = connection
        self._epoch = epoch
        self._entries: list[Entry] = []
        self._delivered = 0
        self._is_idle = False
        self._failure: RealtimeError | None = None
        self._arrived = asyncio.Event()
        self.heard_at = -math.inf
        """When the consumer said something last, by the loop's clock."""

    async def put(self, message: Msg) -> None:
        """Takes one message of the consumer."""
        try:
            # Told by the reply subject: anybody may store a message with a header named Status.
            if not message.reply.startswith(_DELIVERED):
                await self._control(message, message.headers or {})
            else:
                entry, delivered = delivered_entry(self._epoch, message)
                self._delivered += 1
                if delivered != self._delivered:
                    raise SourceUnavailable("a delivery was missed")
                self._entries.append(entry)
        except RealtimeError as exc:
            self._failure = exc
        except (nats.errors.Error, OSError) as exc:
            self._failure = SourceUnavailable(f"NATS went away: {exc or type(exc).__name__}")
        self._arrived.set()

    def fail(self, failure: RealtimeError) -> None:
        """Lets ``get`` raise, after what has come before."""
        self._failure = failure
        self._arrived.set()

    async def get(self) -> list[Entry]:
        """What has come since; an empty list when the consumer says that it has no more.

        Raises:
            SourceUnavailable: a delivery was missed, or nothing came for too long.
        """
        while True:
            self._arrived.clear()
            if self._entries:
                entries, self._entries = self._entries, []
                return entries
            if self._failure is not None:
                raise self._failure
            if self._is_idle:
                self._is_idle = False
                return []
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._arrived.wait()
            except TimeoutError as exc:
                raise SourceUnavailable(f"the broker was silent for {_SILENCE_S:g} s") from exc

    async def _control(self, message: Msg, headers: dict[str, str]) -> None:
        if message.reply:
            await self._connection.publish(message.reply)  # flow control: all before it has come
            return
        if "Nats-Consumer-Stalled" in headers:
            await self._connection.publish(headers["Nats-Consumer-Stalled"])
        if int(headers.get("Nats-Last-Consumer", "0")) != self._delivered:
            raise SourceUnavailable("a delivery was missed")
        self._is_idle = True


async def deliver(
    reader: StreamReader,
    delivery: Delivery,
    config: Mapping[str, object],
    take: Callable[[list[Entry]], Awaitable[None]],
    *,
    ends_when_idle: bool,
) -> None:
    """Runs one consumer until it is idle, or for ever.

    Raises:
        SourceUnavailable: a delivery was missed, the broker fell silent or went away.
    """
    connection = reader.connection
    inbox = connection.new_inbox()
    try:
        subscription = await connection.subscribe(
            inbox, cb=delivery.put, pending_msgs_limit=500_000, pending_bytes_limit=_PENDING_BYTES
        )
        try:
            consumer = await _create_consumer(reader, inbox, config)
            delivery.heard_at = asyncio.get_running_loop().time()
            while True:
                entries = await delivery.get()
                delivery.heard_at = asyncio.get_running_loop().time()
                if entries:
                    await take(entries)
                elif ends_when_idle:
                    break
        finally:
            if connection.is_connected:
                await subscription.unsubscribe()
        await reader.api(f"CONSUMER.DELETE.{reader.stream}.{consumer}")
    except (nats.errors.Error, OSError) as exc:
        raise SourceUnavailable(f"NATS went away: {exc or type(exc).__name__}") from exc


async def _create_consumer(reader: StreamReader, inbox: str, config: Mapping[str, object]) -> str:
    answer = await reader.api(
        f"CONSUMER.CREATE.{reader.stream}",
        {
            "stream_name": reader.stream,
            "config": {
                "deliver_subject": inbox,
                "deliver_policy": "by_start_sequence",
                "ack_policy": "none",
                "max_deliver": 1,
                "mem_storage": True,
                "num_replicas": 1,
                "flow_control": True,
                "idle_heartbeat": int(_HEARTBEAT_S * 1e9),
                "inactive_threshold": 30_000_000_000,
                **config,
            },
        },
    )
    return str(answer["name"])
