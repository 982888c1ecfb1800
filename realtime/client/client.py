"""A connection to a server, and what can be asked over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import grpc

from protos.events.v1 import publish_pb2, read_pb2, read_pb2_grpc
from realtime.client.channel import Channel, client_closed
from realtime.client.dialer import Dialer
from realtime.client.draft import Draft, DraftFields, EventFields, draft, new_event
from realtime.client.keeper import CursorKeeper
from realtime.client.listing import EventList
from realtime.client.publish_calls import PublishCalls
from realtime.client.published import Published
from realtime.client.publisher import Publisher
from realtime.client.start import SnapshotStart, Start, unix_us
from realtime.client.state import State
from realtime.client.subscription import (
    BaseSubscription,
    BroadcastSignalSubscription,
    BroadcastSubscription,
    SignalSubscription,
    Subscription,
)
from realtime.client.token import Caller, TokenProvider
from realtime.client.wish import Filters, Options, filter_message, make_wish
from realtime.cursor import text_to_bytes
from realtime.errors import ArgumentInvalid
from realtime.status import from_rpc_error

SILENCE_S = 25.0
"""A server says something at least every 10 s."""

PATIENCE_S = 30.0
"""How long a call that publishes is made again while the server is away."""

_SAVE_EVERY_S = 1.0
_R = TypeVar("_R")
_OnGap = Literal["raise", "continue"]


class Client:
    """Talks to one server (or several behind one name). Use it as an async context manager.

    ``token`` says who calls: a text, or a coroutine function that gives one that is good now; it is
    asked again when the one in use ends soon. ``silence_s`` is how long a connection may be silent
    before another takes its place.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | TokenProvider | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        if silence_s <= 0:
            raise ArgumentInvalid("silence_s", f"{silence_s} is no time", f"such as {SILENCE_S:g}")
        self.target = target
        self._channel = Channel(target, credentials)
        self._caller = Caller(token)
        self._silence_s = silence_s
        self._open_ones: set[BaseSubscription[Any]] = set()
        self._publishers: set[Publisher] = set()
        self._publishing = PublishCalls(self._channel, self._caller)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; an iteration of a subscription that is open raises that it was closed, and so
        does a publisher.

        Raises:
            StoreUnavailable: the cursor of one that is open cannot be saved; all are closed even so.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._channel.close)
            for subscription in self._open_ones:
                stack.push_async_callback(subscription.end, client_closed())
            for publisher in self._publishers:
                stack.push_async_callback(publisher.end, client_closed())

    @overload
    def subscribe(
        self,
        *,
        start: SnapshotStart,
        signals: bool = ...,
        on_gap: _OnGap = ...,
        broadcasts: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> SignalSubscription: ...
    @overload
    def subscribe(
        self,
        *,
        signals: Literal[True],
        start: Start | SnapshotStart | None = ...,
        on_gap: _OnGap = ...,
        broadcasts: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> SignalSubscription: ...
    @overload
    def subscribe(
        self,
        *,
        on_gap: Literal["continue"],
        start: Start | SnapshotStart | None = ...,
        signals: bool = ...,
        broadcasts: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> SignalSubscription: ...
    @overload
    def subscribe(
        self,
        *,
        start: Start | None = ...,
        signals: Literal[False] = ...,
        on_gap: Literal["raise"] = ...,
        broadcasts: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        *,
        broadcasts: Literal[True],
        start: Start | None = ...,
        signals: Literal[False] = ...,
        on_gap: Literal["raise"] = ...,
        **options: Unpack[Options],
    ) -> BroadcastSubscription: ...
    @overload
    def subscribe(
        self,
        *,
        broadcasts: bool,
        start: Start | SnapshotStart | None = ...,
        signals: bool = ...,
        on_gap: _OnGap = ...,
        **options: Unpack[Options],
    ) -> BroadcastSignalSubscription: ...
    def subscribe(
        self,
        *,
        start: Start | SnapshotStart | None = None,
        signals: bool = False,
        on_gap: _OnGap = "raise",
        broadcasts: bool = False,
        **options: Unpack[Options],
    ) -> BaseSubscription[Any]:
        """A subscription to the events that match each list of ``options`` that is not empty.

        It begins live, at ``start``, or after the cursor that ``store`` has. One that begins with a
        snapshot gives signals beside the events (where a snapshot begins and ends), and so does one with
        ``signals`` or with ``on_gap="continue"``. With ``broadcasts`` it gives those that match, too.

        Raises:
            ArgumentInvalid: an option cannot be what it is.
        """
        if on_gap not in ("raise", "continue"):
            raise ArgumentInvalid("on_gap", f"{on_gap!r} is unknown", "'raise' or 'continue'")
        store = options.get("store")
        keeper = None
        if store is not None:
            every_s = options.get("save_every_s", _SAVE_EVERY_S)
            keeper = CursorKeeper(store, options.get("name", ""), every_s)
        return BaseSubscription(
            State(start or Start.live(), tells_all=signals, on_gap=on_gap),
            Dialer(
                self._channel,
                self._caller,
                make_wish(options, broadcasts=broadcasts),
                self._silence_s,
                options.get("patience_s"),
            ),
            keeper,
            self._open_ones,
        )

    def list_events(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        after: bytes = b"",
        page_size: int = 0,
        **filters: Unpack[Filters],
    ) -> EventList:
        """Events of the past that match each list of ``filters`` that is not empty, oldest first.

        Those that were stored from ``since`` to before ``until``, or after a cursor. It ends where the
        live edge was when the last page was read.

        Raises:
            ArgumentInvalid: a time has no zone; raised by the iteration: the server refuses an argument.
            CursorReset: raised by the iteration: the stream does not reach back to where it begins (EXPIRED),
                or the cursor is of another history.
        """
        request = read_pb2.ListEventsRequest(filter=filter_message(filters), after=after)
        if since is not None:
            request.from_time = unix_us("since", since)
        if until is not None:
            request.until_time = unix_us("until", until)
        request.page.page_size = page_size
        return EventList(request, lambda page: self._ask(lambda read: read.ListEvents, page))

    async def publish(
        self, *, request_id: str | None = None, patience_s: float = PATIENCE_S, **fields: Unpack[DraftFields]
    ) -> Published:
        """Stores one event, and gives where.

        It is called again when the server is away, for ``patience_s`` seconds, and stored once even so: by its
        ``request_id``, or by a random one. With one of the caller's own, a call of a later run repeats it as well.

        Raises:
            VersionConflict: what ``expect`` says does not hold; it has the present version.
            ArgumentInvalid, PermissionDenied, LimitExceeded: the server refuses the event.
            Unavailable: the patience is over; the event may be stored or not.
        """
        return await self._publishing.publish(draft(**fields), request_id, patience_s)

    async def publish_batch(
        self,
        events: Iterable[Draft | publish_pb2.NewEvent],
        *,
        request_id: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> list[Published]:
        """Stores up to 1000 events together or none of them, and gives where, in their order.

        Raises:
            VersionConflict, ArgumentInvalid, PermissionDenied, LimitExceeded, Unavailable: as ``publish``; it names
                all events that fail.
        """
        return await self._publishing.publish_batch(events, request_id, patience_s)

    def publisher(
        self,
        producer_id: str | None = None,
        *,
        patience_s: float | None = None,
        in_flight: int | None = None,
    ) -> Publisher:
        """Publishes many events in their order, pipelined; each is stored once.

        ``producer_id`` names who publishes in this order: a later run goes on behind what is stored of it
        (``Publisher.reached``), and ends one that still runs. A random one when it is left out. ``patience_s`` is how
        long it tries to reach a server that is away; for ever when None. At most ``in_flight`` events are without a
        result: with 1000 or fewer each result has its place, whatever breaks; as the server's window is when None.

        Raises:
            ArgumentInvalid: nothing may be in flight.
        """
        if in_flight is not None and in_flight < 1:
            raise ArgumentInvalid("in_flight", f"with {in_flight} nothing can be sent", "1 or more")
        return Publisher(self._channel, self._caller, producer_id, patience_s, in_flight, self._publishers)

    async def broadcast(self, **fields: Unpack[EventFields]) -> None:
        """Gives an event to whoever listens now (``subscribe(..., broadcasts=True)``). It is stored nowhere.

        It returns when the broker was handed it; it is not tried again.

        Raises:
            ArgumentInvalid: a field cannot be what it is.
            LimitExceeded: it is larger than a broadcast may be.
            PermissionDenied: the caller may not see what it is about.
            Unavailable: the server, or its broker, is away.
        """
        await self._publishing.broadcast(new_event(fields))

    async def get_note(self, note_id: str, *, min_cursor: bytes | str = b"") -> read_pb2.GetNoteResponse:
        """The latest state of a note, at least as new as ``min_cursor`` says: a cursor, or the text that
        ``zephyr_cursor()`` gave in SQL after a COMMIT.

        Raises:
            NotFound, ArgumentInvalid, Unavailable: see ``realtime.errors``.
            CursorReset: the token is of another history.
        """
        request = read_pb2.GetNoteRequest(id=note_id, min_cursor=_token(min_cursor))
        return await self._ask(lambda read: read.GetNote, request)

    async def get_user(self, user_id: str, *, min_cursor: bytes | str = b"") -> read_pb2.GetUserResponse:
        """The latest state of a user, at least as new as ``min_cursor`` says: a cursor, or the text that
        ``zephyr_cursor()`` gave in SQL after a COMMIT.

        Raises:
            NotFound, ArgumentInvalid, Unavailable: see ``realtime.errors``.
            CursorReset: the token is of another history.
        """
        request = read_pb2.GetUserRequest(id=user_id, min_cursor=_token(min_cursor))
        return await self._ask(lambda read: read.GetUser, request)

    async def _ask(
        self,
        method: Callable[[read_pb2_grpc.ReadServiceAsyncStub], Callable[..., Awaitable[_R]]],
        request: object,
    ) -> _R:
        stub: Any = read_pb2_grpc.ReadServiceStub(self._channel.current)
        metadata = await self._caller.metadata()
        try:
            return await method(stub)(request, metadata=metadata)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc


def _token(given: bytes | str) -> bytes:
    return text_to_bytes(given) if isinstance(given, str) else given
