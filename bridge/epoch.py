"""A new epoch in place: the stream stays, with what it holds of the older epoch; the slot goes.

The order makes a kill harmless at any point: the slot goes first, then the stream gets its new
epoch, then its first marks. Until the last of them is stored a bridge finds the epoch lost, and
beginning a new one again mends it. The next term finds no slot and a mark that says that nothing
is stored yet: it copies the tables, and says of what the older epoch tells of and the tables do
not have any more that it is gone.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import structlog

from bridge.errors import StreamUnfit
from bridge.jetstream import JetStream, JetStreamError, connect_nats
from bridge.publish import Publisher
from bridge.settings import BridgeSettings
from bridge.slot import open_replication
from bridge.stream import epoch_after, fit_stream, read_stream
from protos.events.v1 import stream_format as fmt

log = structlog.get_logger("bridge")


async def start_new_epoch(settings: BridgeSettings, lock_wait_s: float | None = None) -> str | None:
    """Begins a new epoch in the stream, and gives it; None when there is no stream: the next run makes one.

    Raises:
        SlotBusy: a bridge is running.
        StreamUnfit: the stream is not one of Zephyr's, or has other settings.
    """
    async with AsyncExitStack() as stack:
        replication = await open_replication(settings.postgres_dsn)
        stack.push_async_callback(replication.close)
        await replication.lock(settings.slot, settings.lock_wait_s if lock_wait_s is None else lock_wait_s)
        source = await replication.identify()
        connection = await connect_nats(settings.nats_url, settings.publish_timeout_s)
        stack.push_async_callback(connection.close)
        jetstream = JetStream(connection, settings.stream, settings.publish_timeout_s)
        info = await read_stream(jetstream)
        former = fit_stream(info, settings).epoch if info is not None else ""
        await replication.drop_any(settings.slot)
        if info is None:
            return None
        epoch = epoch_after(former)
        state = fit_stream(await _rename(jetstream, info["config"], epoch), settings)
        await Publisher(jetstream, state, source, settings.mark_interval_s).begin_epoch()
        log.info("a new epoch began", stream=settings.stream, epoch=epoch, former=former)
        return epoch


async def _rename(jetstream: JetStream, config: dict[str, Any], epoch: str) -> dict[str, Any]:
    """The stream with another epoch in its metadata."""
    wanted = config | {"metadata": config["metadata"] | {fmt.EPOCH_KEY: epoch}}
    try:
        return await jetstream.api(f"STREAM.UPDATE.{jetstream.stream}", wanted)
    except JetStreamError as exc:
        raise StreamUnfit(
            f"the stream {jetstream.stream!r} cannot get another epoch: {exc.message}", "see the broker's log"
        ) from exc
