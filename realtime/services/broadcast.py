"""``PublisherService/Broadcast``: an event for whoever listens now, on any server.

The answer says that the broker was handed it, and no more. Who may see an entity may broadcast about
it: under a policy the caller's scope is asked as for a subscription.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import BroadcastRequest, BroadcastResponse
from realtime.auth.policy import Caller
from realtime.auth.read_access import Metadata, ReadAccess
from realtime.broadcast.check import check_size, make_broadcast
from realtime.broadcast.sender import Sender
from realtime.errors import ArgumentInvalid, NotFound, PermissionDenied, RealtimeError
from realtime.status import abort

SERVICE = "zephyr.events.v1.PublisherService"
_Context = grpc.aio.ServicerContext[Any, Any]


class Broadcasting:
    """Serves Broadcast. ``kinds`` are those that an event may be of, ``max_bytes`` the most that one may have."""

    def __init__(self, sender: Sender, kinds: Collection[str], access: ReadAccess, max_bytes: int) -> None:
        self._sender = sender
        self._kinds = frozenset(kinds)
        self._access = access
        self._max_bytes = max_bytes

    def register(self, server: grpc.aio.Server) -> None:
        """Takes the method's place in a server, whoever serves the others of PublisherService."""
        method: Any = grpc.unary_unary_rpc_method_handler(
            self.broadcast, request_deserializer=None, response_serializer=None
        )
        server.add_registered_method_handlers(SERVICE, {"Broadcast": method})

    async def broadcast(self, data: bytes, context: _Context) -> bytes:
        """One event."""
        try:
            await self._broadcast(data, context.invocation_metadata())
        except RealtimeError as exc:
            await abort(context, exc)
        return BroadcastResponse().SerializeToString()

    async def _broadcast(self, data: bytes, metadata: Metadata) -> None:
        try:
            request = BroadcastRequest.FromString(data)
        except DecodeError as exc:
            raise ArgumentInvalid("request", "it is no BroadcastRequest") from exc
        caller = await self._access.caller(metadata)
        event = make_broadcast(request.event, self._kinds, caller.id)
        payload = event.SerializeToString()
        check_size(payload, self._max_bytes)
        await self._check_scope(metadata, caller, event)
        await self._sender.send(event, payload)

    async def _check_scope(self, metadata: Metadata, caller: Caller, event: Event) -> None:
        kind, workspace = event.type.partition(".")[0], event.workspace_id
        allowed = await self._access.entity(metadata, kind, event.subject, caller)
        try:
            # What belongs to no workspace reaches those that its entity, a user, is a member of.
            allowed.check(None if workspace == fmt.NONE else workspace)
        except NotFound as exc:
            raise PermissionDenied("the caller may not broadcast to this workspace") from exc
