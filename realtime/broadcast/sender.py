"""Hands broadcasts to the broker, or says at once that it cannot. Nothing is kept for later."""

from __future__ import annotations

from typing import Final

import nats.errors
from nats.aio.client import Client as NatsClient

from protos.events.v1 import stream_format as fmt
from realtime.errors import Unavailable
from realtime.publish.commands import Message

_MAX_PENDING_BYTES: Final = 1024 * 1024
"""What may wait for the socket: more of it means that the broker does not read."""


class Sender:
    """Publishes on one connection."""

    def __init__(self, connection: NatsClient) -> None:
        self._connection = connection

    async def send(self, message: Message) -> None:
        """Gives an event, drafted as if it were stored, to whoever listens on any server.

        Raises:
            Unavailable: the broker is away, or does not take what is sent.
        """
        connection = self._connection
        if not connection.is_connected or connection.pending_data_size > _MAX_PENDING_BYTES:
            raise Unavailable(
                "the broker takes no broadcasts now", "broadcast the next one; this one is not kept"
            )
        place = fmt.parse_subject(message.subject)
        assert place is not None
        headers = dict(line.split(": ", 1) for line in message.head.split("\r\n") if line)
        try:
            await connection.publish(
                fmt.live_subject(place.workspace, place.kind, place.entity),
                message.payload,
                headers=headers,
            )
        except (nats.errors.Error, OSError) as exc:
            raise Unavailable(
                f"the broker took no broadcast: {exc or type(exc).__name__}",
                "broadcast the next one; this one is not kept",
            ) from exc
