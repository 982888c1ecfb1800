"""``ReadService/ListEvents``: pages through the past, with the cursors that subscriptions have.

A page is a join of bytes that are ready: an event stands in a response as it stands in a
subscription's frame, so the handler is registered with neither serializer nor deserializer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.common.v1.page_pb2 import PageResponse
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.read_pb2 import ListEventsRequest, ListEventsResponse
from realtime.at_time import point_before
from realtime.auth.policy import AllowAll
from realtime.auth.read_access import Metadata, ReadAccess
from realtime.cursor import Cursor
from realtime.entry import EVENTS_FIELD
from realtime.errors import (
    ArgumentInvalid,
    CursorReset,
    PastGone,
    RealtimeError,
    SourceUnavailable,
    Unavailable,
)
from realtime.filters import compile_filter
from realtime.jetstream import StreamReader
from realtime.listing import Listing, Page, PageLimits
from realtime.page_token import PageToken
from realtime.point import ORIGIN, Point
from realtime.status import abort
from realtime.subscription import Feed

SERVICE = "zephyr.events.v1.ReadService"
_PAGE_EVENTS = 100
_MAX_PAGE_EVENTS = 1000
_WORK_S = 2.0
_ANSWER_S = 8.0
"""An answer is given within so many seconds, or within most of what the caller's deadline leaves."""
_SHARE = 0.8
_OLDEST_TRIES = 5
_Context = grpc.aio.ServicerContext[Any, Any]

assert ListEventsResponse.EVENTS_FIELD_NUMBER == EVENTS_FIELD, "an entry's frame is not an event of a page"


class ListEvents:
    """Serves ListEvents. ``kinds`` are those that a filter may name."""

    def __init__(self, feed: Feed, kinds: Collection[str], access: ReadAccess | None = None) -> None:
        self._feed = feed
        self._access = access or ReadAccess(AllowAll(), lambda _: ())
        self._reader: StreamReader = feed.reader
        self._kinds = frozenset(kinds)
        self._listing = Listing(feed.hub, feed.reader)

    def register(self, server: grpc.aio.Server) -> None:
        """Takes the method's place in a server to which ReadService was added."""
        method: Any = grpc.unary_unary_rpc_method_handler(
            self.list_events, request_deserializer=None, response_serializer=None
        )
        server.add_registered_method_handlers(SERVICE, {"ListEvents": method})

    async def list_events(self, data: bytes, context: _Context) -> bytes:
        """One page."""
        remaining = context.time_remaining()
        answer_s = _ANSWER_S if remaining is None else min(_ANSWER_S, remaining * _SHARE)
        try:
            try:
                async with asyncio.timeout(answer_s):
                    return await self._answer(_parse(data), context.invocation_metadata(), answer_s)
            except TimeoutError as exc:
                raise Unavailable("the stream could not be read in time", "try again") from exc
            except SourceUnavailable as exc:
                raise Unavailable("the stream cannot be read now", "try again") from exc
            except CursorReset as exc:
                raise (PastGone(exc.message) if exc.reason == "EXPIRED" else exc) from exc
        except RealtimeError as exc:
            await abort(context, exc)

    async def _answer(self, request: ListEventsRequest, metadata: Metadata, answer_s: float) -> bytes:
        wanted = await self._access.narrow(metadata, compile_filter(request.filter, self._kinds))
        if request.page.page_size < 0:
            raise ArgumentInvalid("page.page_size", "it is negative", f"ask for 1 to {_MAX_PAGE_EVENTS}")
        question = _question(request)
        if request.page.page_token:
            token = PageToken.decode(request.page.page_token, question)
            after = await self._after(token.after.encode())
            end = token.end
        else:
            after, end = await self._begin(request)
        reset = self._feed.hub.reset_signal()
        # Another server may have released more than this one when it said where the list ends.
        await self._feed.hub.reached(end.sequence)
        limits = PageLimits(
            events=min(request.page.page_size or _PAGE_EVENTS, _MAX_PAGE_EVENTS),
            work_s=min(_WORK_S, answer_s / 2),
        )
        tries = _OLDEST_TRIES if _is_from_the_oldest(request) else 1
        page: Page | None = None
        while page is None:
            tries -= 1
            try:
                page = await self._listing.page(wanted, after, end, limits, reset)
            except CursorReset as exc:
                # The oldest of a moment ago is gone; the oldest of now is meant as well.
                if exc.reason != "EXPIRED" or not tries:
                    raise
                after, end = await self._begin(request)
                reset = self._feed.hub.reset_signal()
        following = "" if page.is_last else PageToken(page.through, end).encode(question)
        tail = ListEventsResponse(cursor=page.through.encode(), page=PageResponse(next_page_token=following))
        return b"".join((*page.frames, tail.SerializeToString()))

    async def _begin(self, request: ListEventsRequest) -> tuple[Cursor, Cursor]:
        """Where the list begins, and where it ends: at the live edge of now at the latest."""
        since, until = request.from_time, request.until_time
        for name, time_us in (("from_time", since), ("until_time", until)):
            if time_us < 0:
                raise ArgumentInvalid(name, "it is negative", "give Unix time in microseconds, or 0")
        if since and until and until <= since and not request.after:
            raise ArgumentInvalid("until_time", "it is not after from_time")
        # Found first: between the place where the list begins and its reading nothing may be awaited.
        epoch = self._feed.hub.epoch
        before = await self._before(until) if until else None
        if request.after:
            after = await self._after(request.after)
        elif since:
            after = await self._start(pb.Start(at_time=pb.AtTimeStart(time=since)))
        else:
            after = await self._start(pb.Start(earliest=pb.EarliestStart()))
        end = self._listing.edge
        if before is None:
            return after, end
        if epoch != end.epoch:
            raise SourceUnavailable("a new epoch began just now")
        return after, min(end, before.cursor(epoch), key=lambda cursor: cursor.sequence)

    async def _after(self, cursor: bytes) -> Cursor:
        return await self._start(pb.Start(after=pb.AfterStart(cursor=cursor)))

    async def _start(self, start: pb.Start) -> Cursor:
        return (await self._feed.start_point(start)).cursor(self._feed.hub.epoch)

    async def _before(self, time_us: int) -> Point:
        """The end of what was stored before a time. Nothing of it is left where retention passed it."""
        try:
            return await point_before(self._reader, time_us)
        except CursorReset:
            return ORIGIN


def _parse(data: bytes) -> ListEventsRequest:
    try:
        return ListEventsRequest.FromString(data)
    except DecodeError as exc:
        raise ArgumentInvalid("request", "it is no ListEventsRequest") from exc


def _is_from_the_oldest(request: ListEventsRequest) -> bool:
    return not (request.page.page_token or request.after or request.from_time)


def _question(request: ListEventsRequest) -> bytes:
    """What all pages of a list have in common."""
    return ListEventsRequest(
        filter=request.filter,
        from_time=request.from_time,
        until_time=request.until_time,
        after=request.after,
    ).SerializeToString(deterministic=True)
