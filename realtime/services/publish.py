"""``zephyr.events.v1.PublisherService``: what is answered at once. Streams are in ``publish_stream.py``.

Requests come as bytes, so that what cannot be read is answered like any other fault.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from protos.events.v1 import publish_pb2 as pb
from realtime.auth.read_access import Metadata
from realtime.errors import (
    ArgumentInvalid,
    LimitExceeded,
    PermissionDenied,
    RealtimeError,
    Unavailable,
)
from realtime.publish import rules
from realtime.publish.access import PublishAccess, admit
from realtime.publish.draft import new_event_id, quoted
from realtime.publish.item import Flow, Item, Unit
from realtime.publish.publisher import Publisher, in_event, message_id
from realtime.publish.queue import MOST_EVENTS
from realtime.publish.together import store_together
from realtime.services.publish_stream import PublishStream
from realtime.status import abort

log = structlog.get_logger("publish")

SERVICE = "zephyr.events.v1.PublisherService"
_ANSWER_S = 10.0
_SHARE = 0.8
"""An answer is given within so many seconds, or within most of what the caller's deadline leaves."""
_IMPOSSIBLE = f"zephyr/{secrets.token_hex(16)}"
"""A message id that nobody's message has."""
_Context = grpc.aio.ServicerContext[Any, Any]
_M = TypeVar("_M", bound=Message)


class PublishService:
    """Serves Publish, PublishBatch and PublishStream. ``drain`` tells every stream to go."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._streams: set[PublishStream] = set()
        self._is_draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers."""
        unary: Any = grpc.unary_unary_rpc_method_handler
        stream: Any = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Publish": unary(self.publish, None, None),
                "PublishBatch": unary(self.publish_batch, None, None),
                "PublishStream": stream(self.publish_stream, None, None),
            },
        )

    async def publish(self, data: bytes, context: _Context) -> bytes:
        """One event."""
        return await self._answer(context, data, self._publish)

    async def publish_batch(self, data: bytes, context: _Context) -> bytes:
        """Events together."""
        return await self._answer(context, data, self._publish_batch)

    async def publish_stream(self, _: object, context: _Context) -> None:
        """One client's stream, from its opening to its end."""
        try:
            access = await admit(self._publisher.policy, context.invocation_metadata())
        except RealtimeError as exc:
            await abort(context, exc)
        stream = PublishStream(context, self._publisher, access)
        if self._is_draining:
            stream.go_away()
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """Tells every client that the server is about to stop; what is under way gets its results before."""
        self._is_draining = True
        for stream in self._streams:
            stream.go_away()

    async def _answer(
        self, context: _Context, data: bytes, work: Callable[[bytes, Metadata], Awaitable[Message]]
    ) -> bytes:
        allowance = self._publisher.allowance
        if not allowance.take(len(data)):
            text = "more waits to be stored than this server may keep"
            await abort(context, LimitExceeded(text, "try again, or raise ZEPHYR_PUBLISH_WINDOW_BYTES"))
        try:
            return await self._work(context, data, work)
        finally:
            allowance.give_back(len(data))

    async def _work(
        self, context: _Context, data: bytes, work: Callable[[bytes, Metadata], Awaitable[Message]]
    ) -> bytes:
        remaining = context.time_remaining()
        answer_s = _ANSWER_S if remaining is None else min(_ANSWER_S, remaining * _SHARE)
        try:
            try:
                async with asyncio.timeout(answer_s):
                    await self._publisher.ready()
                    response = await work(data, context.invocation_metadata())
            except TimeoutError as exc:
                raise Unavailable(
                    "the broker did not answer in time: it may be stored or not",
                    "try again, with a request_id or as a producer",
                ) from exc
        except RealtimeError as exc:
            await abort(context, exc)
        except Exception as exc:  # told as INTERNAL
            log.error("publishing failed", exc_info=exc)
            await abort(context, exc)
        return response.SerializeToString()

    async def _publish(self, data: bytes, metadata: Metadata) -> pb.PublishResponse:
        request = _parse(pb.PublishRequest, data)
        access = await admit(self._publisher.policy, metadata)
        rules.check(request)
        if not request.HasField("event"):
            raise ArgumentInvalid("event", "it is not set")
        expectation = request.expectation if request.HasField("expectation") else None
        idempotency = request.WhichOneof("idempotency")
        publisher = self._publisher
        if idempotency == "producer":
            place = request.producer
            item = publisher.item(
                access,
                request.event,
                expectation,
                place.sequence,
                f"{place.producer_id}.{place.sequence}",
                publisher.source(access, place.producer_id),
            )
            await self._store_as_producer(place, [item])
        else:
            more, event_id = "", ""
            if idempotency == "request_id":
                more, event_id = _known_by(access, request.request_id), quoted(request.request_id)
            event_id = event_id or new_event_id()
            source = publisher.source(access, "")
            item = publisher.item(access, request.event, expectation, 1, event_id, source, more=more)
            await store_together(publisher, [item], more)
        return pb.PublishResponse(stored=(await publisher.stored([item]))[0])

    async def _publish_batch(self, data: bytes, metadata: Metadata) -> pb.PublishBatchResponse:
        request = _parse(pb.PublishBatchRequest, data)
        access = await admit(self._publisher.policy, metadata)
        rules.check(request)
        if request.WhichOneof("idempotency") == "producer":
            if len(request.events) > MOST_EVENTS:
                raise ArgumentInvalid(
                    "events",
                    f"of a producer, at most {MOST_EVENTS} are stored together: its mark is one of the batch",
                    "send them as two batches",
                )
            items = self._items(access, request, "", request.producer)
            await self._store_as_producer(request.producer, items)
        else:
            more = _known_by(access, request.request_id) if request.request_id else ""
            items = self._items(access, request, more, None)
            await store_together(self._publisher, items, more)
        return pb.PublishBatchResponse(stored=await self._publisher.stored(items))

    def _items(
        self,
        access: PublishAccess,
        request: pb.PublishBatchRequest,
        more: str,
        place: pb.ProducerPlace | None,
    ) -> list[Item]:
        """All of them, or what is wrong with all of them."""
        publisher = self._publisher
        source = publisher.source(access, place.producer_id if place is not None else "")
        items: list[Item] = []
        wrong: list[tuple[str, str]] = []
        denied: RealtimeError | None = None
        seen: set[str] = set()
        for index, each in enumerate(request.events):
            if place is not None:
                event_id = f"{place.producer_id}.{place.sequence + index}"
            elif more:
                event_id = f"{quoted(request.request_id)}.{index}"
            else:
                event_id = new_event_id()
            try:
                item = publisher.item(
                    access,
                    each.event,
                    each.expectation if each.HasField("expectation") else None,
                    place.sequence + index if place is not None else index + 1,
                    event_id,
                    source,
                    f"events[{index}]",
                    more if index == 0 else "",
                )
                if item.expected >= 0 and item.message.subject in seen:
                    raise ArgumentInvalid(
                        "expectation", "only the first event of an entity in a batch may expect something"
                    )
                seen.add(item.message.subject)
                items.append(item)
            except PermissionDenied as exc:
                denied = denied or exc
            except RealtimeError as exc:
                wrong += in_event(index, exc)
        if denied is not None:
            raise denied
        if wrong:
            raise rules.RuleBroken(wrong)
        return items

    async def _store_as_producer(self, place: pb.ProducerPlace, items: list[Item]) -> None:
        line = self._publisher.producers.line(place.producer_id)
        settled = asyncio.Event()
        flow = Flow(settled.set, place.session)
        line.put(Unit(flow, items, is_whole=True))
        while not all(item.is_settled for item in items):
            if flow.failure is not None:
                raise flow.failure
            settled.clear()
            await settled.wait()
        for item in items:
            if item.error is not None:
                raise item.error


def _known_by(access: PublishAccess, request_id: str) -> str:
    return f"Nats-Msg-Id: {message_id(access, request_id)}\r\n"


def _parse(kind: type[_M], data: bytes) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise ArgumentInvalid("request", f"it is no {kind.DESCRIPTOR.name}") from exc
