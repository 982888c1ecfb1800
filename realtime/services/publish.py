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
    PermissionDenied,
    RealtimeError,
    SourceUnavailable,
    Unavailable,
    VersionConflict,
)
from realtime.publish import rules
from realtime.publish.access import PublishAccess, admit
from realtime.publish.broker import DUPLICATE, WRONG_LAST, WRONG_LAST_ID, Ack, Refused
from realtime.publish.draft import new_event_id, quoted
from realtime.publish.item import Flow, Item, Unit
from realtime.publish.publisher import Publisher, in_event, message_id
from realtime.publish.queue import MOST_EVENTS
from realtime.publish.versions import conflict_of, present_versions
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
        return await self._answer(context, lambda metadata: self._publish(data, metadata))

    async def publish_batch(self, data: bytes, context: _Context) -> bytes:
        """Events together."""
        return await self._answer(context, lambda metadata: self._publish_batch(data, metadata))

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

    async def _answer(self, context: _Context, work: Callable[[Metadata], Awaitable[Message]]) -> bytes:
        remaining = context.time_remaining()
        answer_s = _ANSWER_S if remaining is None else min(_ANSWER_S, remaining * _SHARE)
        try:
            try:
                async with asyncio.timeout(answer_s):
                    await self._publisher.ready()
                    response = await work(context.invocation_metadata())
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
            await self.store_together([item], more)
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
            await self.store_together(items, more)
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

    async def store_together(self, items: list[Item], known_by: str) -> None:
        """Without a producer: one message by itself, more of them as an atomic batch.

        Raises:
            RealtimeError: they are not stored, or may be.
        """
        broker = self._publisher.broker
        messages = [item.outgoing() for item in items]
        try:
            ack = await (broker.publish(messages[0]) if len(messages) == 1 else broker.store(messages))
        except Refused as exc:
            earlier = await self._stored_earlier(items, known_by)
            if earlier is None:
                if exc.error_code == WRONG_LAST:
                    raise await self._conflict(items) from exc
                if exc.error_code == DUPLICATE:
                    raise Unavailable("the request's window ended just now", "try again") from exc
                raise Unavailable(exc.message, exc.mend) from exc
            ack = Ack(earlier.sequence + len(items) - 1, len(items), is_duplicate=True)
        first = ack.sequence - len(items) + 1
        for place, item in enumerate(items, first):
            item.store(place, is_repeated=ack.is_duplicate)

    async def _stored_earlier(self, items: list[Item], known_by: str) -> Ack | None:
        """Where an earlier call with the same request id stored its first event; None when there is none.

        The broker looks an id up before it holds the last message's id against what is expected: so an id that
        cannot be is refused, unless the request is known.
        """
        if not known_by:
            return None
        first = items[0].message
        head = f"{first.head}Nats-Expected-Last-Msg-Id: {_IMPOSSIBLE}\r\n"
        try:
            return await self._publisher.broker.publish(type(first)(first.subject, head, b""))
        except Refused as exc:
            if exc.error_code == WRONG_LAST_ID:
                return None
            raise Unavailable(exc.message, exc.mend) from exc

    async def _conflict(self, items: list[Item]) -> RealtimeError:
        publisher = self._publisher
        expecting = [item for item in items if item.expected >= 0]
        try:
            present = await present_versions(publisher.reader, [item.message.subject for item in expecting])
        except SourceUnavailable as exc:
            return Unavailable(exc.message, exc.mend)
        conflicts = []
        for item in expecting:
            last = present[item.message.subject]
            if item.expected != (last.sequence if last is not None else 0):
                conflicts.append(conflict_of(item.field, publisher.places.epoch, last))
        if not conflicts:
            return Unavailable("others publish about the same entity at the same time", "try again")
        return VersionConflict(conflicts)


def _known_by(access: PublishAccess, request_id: str) -> str:
    return f"Nats-Msg-Id: {message_id(access, request_id)}\r\n"


def _parse(kind: type[_M], data: bytes) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise ArgumentInvalid("request", f"it is no {kind.DESCRIPTOR.name}") from exc
