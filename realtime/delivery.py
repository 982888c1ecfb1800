"""What a consumer delivers, in order and without a gap, or not at all.

An ephemeral push consumer without acknowledgements (``delivered.py`` holds what came). A gap in
what it delivers, or silence, ends the delivery.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import nats.errors
from nats.aio.client import Client as NatsClient

from realtime.delivered import Delivered
from realtime.entry import Entry
from realtime.errors import RealtimeError, SourceUnavailable
from realtime.jetstream import StreamReader
from realtime.tap import listen

_HEARTBEAT_S = 1.0
_SILENCE_S = 3.5
LATE_S = 1.5
"""A heartbeat that has not come by then is late: the consumer may be gone, or what lies between."""
_SLICE = 256
"""Entries that are read and handed over in one turn of the loop, if nothing else is said."""


class Delivery:
    """What a consumer has delivered, to be awaited.

    The broker's flow control bounds it: it sends on only when a mark among the messages was
    answered, which is done when all before it was taken and asked for more. ``turn`` is entered while
    entries are read, at most ``limit`` at a time: those who share it do so one after the other.
    """

    def __init__(
        self,
        connection: NatsClient,
        epoch: str,
        limit: int = _SLICE,
        turn: AbstractAsyncContextManager[None] | None = None,
    ) -> None:
        self.limit = limit
        self._turn = turn or nullcontext()
        self._connection = connection
        self._failure: RealtimeError | None = None
        self._arrived = asyncio.Event()
        self.heard_at = -math.inf
        """When the consumer said something last, by the loop's clock."""
        self._delivered = Delivered(epoch, self._arrived.set)
        self.sink = self._delivered.sink

    def fail(self, failure: RealtimeError) -> None:
        """Lets ``get`` raise, after what has come before."""
        self._failure = failure
        self._arrived.set()

    async def get(self) -> list[Entry]:
        """What has come since, a slice of it; an empty list when the consumer says that it has no more.

        Raises:
            SourceUnavailable: a delivery was missed, or nothing came for too long.
            nats.errors.Error, OSError: the connection is closed or broken.
        """
        delivered = self._delivered
        while True:
            for mark in delivered.marks():
                await self._connection.publish(mark)
            self._arrived.clear()
            async with self._turn:
                entries = delivered.take(self.limit)
            if entries:
                return entries
            if delivered.has_marks:
                continue
            if self._failure is not None:
                raise self._failure
            if delivered.failure:
                raise SourceUnavailable(delivered.failure)
            if delivered.is_idle:
                delivered.is_idle = False
                return []
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._arrived.wait()
            except TimeoutError as exc:
                raise SourceUnavailable(f"the broker was silent for {_SILENCE_S:g} s") from exc


async def deliver(
    reader: StreamReader,
    delivery: Delivery,
    config: Mapping[str, object],
    take: Callable[[list[Entry]], Awaitable[bool]],
    *,
    ends_when_idle: bool,
) -> None:
    """Runs one consumer until ``take`` says that it is enough, or until it is idle, or for ever.

    Raises:
        SourceUnavailable: a delivery was missed, the broker fell silent or went away.
    """
    connection = reader.connection
    inbox = connection.new_inbox()
    try:
        listening = await listen(connection, inbox, delivery.sink)
        try:
            consumer = await _create_consumer(reader, inbox, config)
            delivery.heard_at = asyncio.get_running_loop().time()
            while True:
                entries = await delivery.get()
                delivery.heard_at = asyncio.get_running_loop().time()
                if not entries:
                    if ends_when_idle:
                        break
                    continue
                if await take(entries):
                    break
                await asyncio.sleep(0)
            # What is still on its way is dropped here: nats-py would take it apart first.
            delivery.sink.is_open = False
            await reader.api(f"CONSUMER.DELETE.{reader.stream}.{consumer}")
        finally:
            await listening.close()
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
