"""Publishing with one call each. A call that got no answer is made again: its request id makes that harmless."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any

import grpc

from protos.events.v1 import publish_pb2 as pb
from protos.events.v1 import publish_pb2_grpc
from realtime.client.backoff import Backoff
from realtime.client.channel import Channel
from realtime.client.draft import Draft, drafted
from realtime.client.ended import translated
from realtime.client.published import Published, published
from realtime.client.token import Caller
from realtime.errors import ArgumentInvalid, Unavailable
from realtime.status import from_rpc_error

_TRY_S = 10.0
"""How long one try may take. A server that is well answers within a fraction of it."""
_BROADCAST_S = 5.0
MAX_PATIENCE_S = 90.0
"""A request id holds for two minutes, the stream's duplicate window: a later try might store the event again."""


class PublishCalls:
    """Over the client's channel."""

    def __init__(self, channel: Channel, caller: Caller) -> None:
        self._channel = channel
        self._caller = caller

    async def publish(self, event: Draft, request_id: str | None, patience_s: float) -> Published:
        """Stores one event.

        Raises:
            RealtimeError: see ``Client.publish``.
        """
        request = pb.PublishRequest(
            event=event.event, expectation=event.expectation, request_id=request_id or uuid.uuid4().hex
        )
        response: pb.PublishResponse = await self._call("Publish", request, request.request_id, patience_s)
        return published(response.stored)

    async def publish_batch(
        self, events: Iterable[Draft | pb.NewEvent], request_id: str | None, patience_s: float
    ) -> list[Published]:
        """Stores events together or not at all.

        Raises:
            RealtimeError: see ``Client.publish_batch``.
        """
        request = pb.PublishBatchRequest(request_id=request_id or uuid.uuid4().hex)
        for each in map(drafted, events):
            request.events.add(event=each.event, expectation=each.expectation)
        if not request.events:
            return []
        response: pb.PublishBatchResponse = await self._call(
            "PublishBatch", request, request.request_id, patience_s
        )
        return [published(each) for each in response.stored]

    async def broadcast(self, event: pb.NewEvent) -> None:
        """Gives an event to whoever listens; not tried again.

        Raises:
            RealtimeError: see ``Client.broadcast``.
        """
        stub: Any = publish_pb2_grpc.PublisherServiceStub(self._channel.current)
        request = pb.BroadcastRequest(event=event)
        try:
            await stub.Broadcast(request, metadata=await self._caller.metadata(), timeout=_BROADCAST_S)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc

    async def _call(self, method: str, request: object, request_id: str, patience_s: float) -> Any:
        if not 0 <= patience_s <= MAX_PATIENCE_S:
            raise ArgumentInvalid(
                "patience_s",
                f"a request id does not hold for {patience_s:g} s",
                f"at most {MAX_PATIENCE_S:g}; a publisher tries for as long as you like",
            )
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + patience_s
        backoff = Backoff()
        while True:
            channel = self._channel.current
            stub = publish_pb2_grpc.PublisherServiceStub(channel)
            metadata = await self._caller.metadata()
            try:
                return await getattr(stub, method)(request, metadata=metadata, timeout=_TRY_S)
            except grpc.aio.AioRpcError as exc:
                error = translated(exc)
                if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._channel.renew(channel)
                    error = Unavailable(f"the server did not answer within {_TRY_S:g} s")
                pause_s = backoff.next_s()
                if not isinstance(error, Unavailable):
                    raise error from exc
                if loop.time() + pause_s > gives_up_at:
                    raise Unavailable(
                        error.message,
                        f"it may be stored or not: call again with request_id={request_id!r}, then it is once",
                    ) from exc
            await asyncio.sleep(pause_s)
