"""The client's gRPC channel, and another one when its connection is dead without knowing it.

A call on a half-open connection is silent until TCP or keepalive gives up, and so is every later
call on the same channel. Who noticed the silence asks for a new one; calls that still run on the old
channel keep it for as long as they may need.
"""

from __future__ import annotations

import asyncio

import grpc

from realtime.errors import RealtimeError

_SERVICE_CONFIG = """{
  "methodConfig": [{
    "name": [{"service": "zephyr.events.v1.ReadService"}],
    "timeout": "10s",
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }],
  "loadBalancingConfig": [{"round_robin": {}}]
}"""

_OPTIONS = (
    ("grpc.max_receive_message_length", 10 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without it gRPC waits 60 s for the answer, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", _SERVICE_CONFIG),
    # Each client its own connection: what one does not read holds up nobody else.
    ("grpc.use_local_subchannel_pool", 1),
)
_GRACE_S = 24 * 3600.0
"""How long calls on an old channel may go on. Their own watchdogs and deadlines end those that are dead too; others
may have another server behind the same name."""


class Channel:
    """``current`` is the channel for the next call."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self._target = target
        self._credentials = credentials
        self._current = self._open()
        self._retiring: dict[asyncio.Task[None], grpc.aio.Channel] = {}
        self._is_closed = False

    @property
    def current(self) -> grpc.aio.Channel:
        """
        Raises:
            RealtimeError: the client was closed.
        """
        if self._is_closed:
            raise client_closed()
        return self._current

    def renew(self, silent: grpc.aio.Channel) -> None:
        """Replaces a channel whose connection is silent, unless somebody did already."""
        if self._is_closed or silent is not self._current:
            return
        self._current = self._open()
        task = asyncio.ensure_future(silent.close(_GRACE_S))
        self._retiring[task] = silent
        task.add_done_callback(self._retiring.pop)

    async def close(self) -> None:
        """Ends every connection."""
        self._is_closed = True
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        for channel in (*retiring.values(), self._current):
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, options=_OPTIONS)


def client_closed() -> RealtimeError:
    return RealtimeError("the client was closed", "open another")
