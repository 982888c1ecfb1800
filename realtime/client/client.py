"""A connection to a server, and what can be asked over it."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

import grpc

from protos.events.v1 import read_pb2, read_pb2_grpc, stream_pb2_grpc
from realtime.client.start import Start
from realtime.client.subscription import Subscription
from realtime.filters import Filter
from realtime.status import from_rpc_error

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
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", _SERVICE_CONFIG),
    # Each client its own connection: what one does not read holds up nobody else.
    ("grpc.use_local_subchannel_pool", 1),
)


class Client:
    """Talks to one server (or several behind one name). Use it as an async context manager."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._read = read_pb2_grpc.ReadServiceStub(self._channel)
        self._stream = stream_pb2_grpc.StreamServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; open subscriptions end with it."""
        await self._channel.close()

    def subscribe(
        self,
        *,
        workspaces: Iterable[str] = (),
        kinds: Iterable[str] = (),
        entities: Iterable[str] = (),
        start: Start | None = None,
        patience_s: float | None = None,
    ) -> Subscription:
        """A subscription to the events that match each list that is not empty.

        ``patience_s`` is how long it tries to reach a server that is away: for ever when None.
        """
        wanted = Filter(frozenset(workspaces), frozenset(kinds), frozenset(entities))
        return Subscription(self._stream, wanted, start or Start.live(), patience_s)

    async def get_note(self, note_id: str) -> read_pb2.GetNoteResponse:
        """The latest state of a note.

        Raises:
            NotFound, ArgumentInvalid, Unavailable: see ``realtime.errors``.
        """
        try:
            return await self._read.GetNote(read_pb2.GetNoteRequest(id=note_id))
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc

    async def get_user(self, user_id: str) -> read_pb2.GetUserResponse:
        """The latest state of a user.

        Raises:
            NotFound, ArgumentInvalid, Unavailable: see ``realtime.errors``.
        """
        try:
            return await self._read.GetUser(read_pb2.GetUserRequest(id=user_id))
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc
