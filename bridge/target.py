"""The stream as a term owns it: connected, there, fenced with the term's owner mark, read to its end.

The marks that stand in it are held against source and slot before the owner mark is written:
whoever does not belong here must not fence the one who does.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from bridge.cloud_event import with_cloud_event
from bridge.continuity import check_no_slot, check_slot
from bridge.dead_letters import DeadLetters
from bridge.ingest import FastIngest
from bridge.jetstream import JetStream, connect_nats
from bridge.origin import Origin
from bridge.postgres import SlotState
from bridge.publish import Publisher
from bridge.settings import BridgeSettings
from bridge.stream import StreamState, create_stream, fit_stream, new_epoch, read_stream
from bridge.tail import Tail
from protos.events.v1.rejected_pb2 import DeadLetter

log = structlog.get_logger("bridge")


@dataclass(frozen=True, slots=True)
class Target:
    """``keep`` stores dead letters; with None a row that cannot be an event ends the bridge."""

    jetstream: JetStream
    state: StreamState
    publisher: Publisher
    tail: Tail
    keep: Callable[[DeadLetter], Awaitable[None]] | None

    @property
    def epoch(self) -> str:
        return self.state.epoch


async def open_target(stack: AsyncExitStack, settings: BridgeSettings, origin: Origin) -> Target:
    """Opens the stream, or makes it, and begins a term in it; ``stack`` closes the connection.

    Raises:
        BridgeError: see ``bridge.errors``.
    """
    connection = await connect_nats(settings.nats_url, settings.publish_timeout_s)
    stack.push_async_callback(connection.close)
    jetstream = FastIngest(connection, settings.stream, settings.publish_timeout_s)
    await jetstream.open()
    state = await _open_stream(jetstream, settings, origin.slot)
    jetstream.allows_runs = state.allows_runs
    publisher = Publisher(
        jetstream, state, origin.source, settings.mark_interval_s, origin.replication.identify
    )
    if settings.cloudevents == "on":
        publisher.decorate = with_cloud_event
    if state.last_sequence == 0:
        await publisher.write_first_position()
    check_slot(settings.slot, origin.slot, await publisher.read_mark())
    await publisher.begin_term()
    tail = await publisher.read_tail()
    return Target(jetstream, state, publisher, tail, _letters_of(jetstream, settings, state.epoch))


async def _open_stream(jetstream: JetStream, settings: BridgeSettings, slot: SlotState | None) -> StreamState:
    info = await read_stream(jetstream)
    if info is not None:
        return fit_stream(info, settings)
    check_no_slot(settings.stream, settings.slot, slot)
    log.info("making the stream", stream=settings.stream)
    return await create_stream(jetstream, settings, new_epoch())


def _letters_of(
    jetstream: JetStream, settings: BridgeSettings, epoch: str
) -> Callable[[DeadLetter], Awaitable[None]] | None:
    if settings.on_poison == "stop":
        return None
    letters = DeadLetters(jetstream, settings.stream, settings.stream_replicas)
    return functools.partial(letters.store, epoch)
