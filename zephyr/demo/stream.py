"""Reads all ``row`` messages of the stream straight from the broker, with nats-py alone.

It is the demo's own reader, and shares no code with the bridge that wrote them or with the server
that serves them, so that neither can vouch for itself. What it holds is one batch, some 16 MiB.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from protos.events.v1 import stream_format as fmt
from zephyr.console import CommandError
from zephyr.demo.fold import Fold

_ROWS = f"{fmt.ROOT}.*.*.*.*.row"
_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_MESSAGES = 1000
_FORGET_AFTER_S = 300.0
_TIMEOUT_S = 10.0


class StreamReader:
    """Reads on from where it stopped. ``is_evicted`` says that the stream has lost its beginning."""

    def __init__(
        self, subscription: JetStreamContext.PullSubscription, mean_bytes: int, epoch: str, is_evicted: bool
    ) -> None:
        self._subscription = subscription
        self._batch = max(1, min(_BATCH_MESSAGES, _BATCH_BYTES // max(1, mean_bytes)))
        self._read = 0
        self.epoch = epoch
        self.is_evicted = is_evicted

    async def read_into(self, fold: Fold) -> None:
        """Folds what is in the stream by now and was not read yet.

        Raises:
            CommandError: the broker cannot be reached, or left a message out.
        """
        try:
            left = (await self._subscription.consumer_info()).num_pending or 0
            while left > 0:
                for message in await self._subscription.fetch(min(self._batch, left), _TIMEOUT_S):
                    metadata = message.metadata
                    left -= 1
                    self._read += 1
                    if metadata.sequence.consumer != self._read:
                        raise CommandError(f"the broker left out message {self._read} of the stream")
                    verb = (message.headers or {}).get(fmt.VERB, "")
                    fold.take(metadata.sequence.stream, message.subject, verb, message.data)
        except (NatsError, OSError) as exc:
            raise _unreadable(exc) from exc


@asynccontextmanager
async def open_stream(url: str, name: str) -> AsyncIterator[StreamReader]:
    """A reader at the beginning of the stream.

    Raises:
        CommandError: the broker cannot be reached, or has no such stream.
    """
    try:
        connection = await nats.connect(url, name="zephyr demo", connect_timeout=_TIMEOUT_S)
    except (NatsError, OSError) as exc:
        raise _unreadable(exc) from exc
    try:
        try:
            context = connection.jetstream(timeout=_TIMEOUT_S)
            info = await context.stream_info(name)
            subscription = await context.pull_subscribe(
                _ROWS,
                stream=name,
                config=ConsumerConfig(
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.NONE,
                    inactive_threshold=_FORGET_AFTER_S,
                    mem_storage=True,
                ),
            )
        except (NatsError, OSError) as exc:
            raise _unreadable(exc) from exc
        state = info.state
        mean_bytes = state.bytes // state.messages if state.messages else 0
        epoch = (info.config.metadata or {}).get(fmt.EPOCH_KEY, "")
        yield StreamReader(subscription, mean_bytes, epoch, state.first_seq > 1)
    finally:
        await connection.close()


def _unreadable(exc: Exception) -> CommandError:
    cause = str(exc) or type(exc).__name__
    return CommandError(f"the stream cannot be read from NATS: {cause}", "see that NATS runs", 3)
