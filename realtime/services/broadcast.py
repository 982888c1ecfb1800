"""``PublisherService/Broadcast``: an event for whoever listens now, on any server.

The event keeps the rules of published ones. The answer says that the broker was handed it, and no more. Who may
see an entity may broadcast about it: under a policy the caller's scope is asked as for a subscription.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.publish_pb2 import BroadcastRequest, BroadcastResponse, NewEvent
from realtime.auth.policy import Caller
from realtime.auth.read_access import Metadata, ReadAccess
from realtime.broadcast.sender import Sender
from realtime.errors import ArgumentInvalid, LimitExceeded, NotFound, PermissionDenied, RealtimeError
from realtime.publish import rules
from realtime.publish.draft import Drafter, new_event_id, source_of
from realtime.status import abort

SERVICE = "zephyr.events.v1.PublisherService"
_Context = grpc.aio.ServicerContext[Any, Any]


class Broadcasting:
    """Serves Broadcast. ``max_bytes`` is the most that an event may have."""

    def __init__(self, sender: Sender, drafter: Drafter, access: ReadAccess, max_bytes: int) -> None:
        self._sender = sender
        self._drafter = drafter
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
        rules.check(request)
        if not request.HasField("event"):
            raise ArgumentInvalid("event", "it is not set")
        message = self._drafter.message(request.event, new_event_id(), source_of(caller.id), caller.id)
        if len(message.payload) > self._max_bytes:
            raise LimitExceeded(
                f"the broadcast has {len(message.payload)} bytes, at most {self._max_bytes} are possible",
                "send less, or publish what must arrive",
            )
        await self._check_scope(metadata, caller, request.event)
        await self._sender.send(message)

    async def _check_scope(self, metadata: Metadata, caller: Caller, new: NewEvent) -> None:
        allowed = await self._access.entity(metadata, new.kind, new.entity_id, caller)
        try:
            # What belongs to no workspace reaches those that its entity, a user, is a member of.
            allowed.check(None if new.workspace_id == fmt.NONE else new.workspace_id.lower())
        except NotFound as exc:
            raise PermissionDenied("the caller may not broadcast to this workspace") from exc
