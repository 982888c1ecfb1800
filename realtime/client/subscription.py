"""One subscription of a client: typed events, in order, across reconnections.

Each connection is a stream of its own. When one ends, the subscription connects anew after the
last event that it handed out, or begins its snapshot again. What is handed out is done with when the
next is asked for: then its credit is granted again and its cursor saved. Messages that are
gone, or frames that do not join, are raised and never skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, Never, Self, TypeAlias, TypeVar, cast

from protos.events.v1 import stream_pb2 as pb
from realtime.client.broadcasts import Broadcast
from realtime.client.connection import Connection
from realtime.client.dialer import Dialer
from realtime.client.keeper import CursorKeeper
from realtime.client.received import Batch, ReceivedEvent
from realtime.client.signals import Signal
from realtime.client.state import State
from realtime.errors import RealtimeError, Unavailable

S = TypeVar("S")
_Item: TypeAlias = Batch | Signal | Broadcast


class BaseSubscription(Generic[S]):
    """Iterate it for events, or ``batches()`` for all of a frame at once. Use it as an async context manager.

    An iteration may be left and begun again: it goes on where it was. One iteration at a time.
    """

    def __init__(
        self,
        state: State,
        dialer: Dialer,
        keeper: CursorKeeper | None,
        open_ones: set[BaseSubscription[Any]],
    ) -> None:
        self._state = state
        self._dialer = dialer
        self._keeper = keeper
        self._open_ones = open_ones
        self._is_loaded = keeper is None
        self._connection: Connection | None = None
        self._batch = Batch((), b"")
        self._left: deque[ReceivedEvent] = deque()
        self._ahead: deque[_Item] = deque()
        self._in_hand: tuple[Connection, tuple[int, int]] | None = None
        self._closing = asyncio.Event()
        self._ended: RealtimeError | None = None

    @property
    def cursor(self) -> bytes:
        """The place behind what was handed out; empty while there is none, as within a snapshot."""
        return self._state.cursor

    @property
    def is_caught_up(self) -> bool:
        """Whether the live edge was reached."""
        return self._state.is_caught_up

    @property
    def source(self) -> pb.SourcePosition:
        """Where the source is, as the server said last."""
        return self._state.source

    @property
    def lost_workspaces(self) -> frozenset[str]:
        """Workspaces that are not delivered any more, since the caller may not see them."""
        return self._state.lost_workspaces

    @property
    def reconnections(self) -> int:
        """How often another connection went on."""
        return self._state.reconnections

    @property
    def waiting_bytes(self) -> int:
        """What came and was not yet handed out; bounded by the credit window."""
        return self._connection.waiting_bytes if self._connection is not None else 0

    @property
    def patience_s(self) -> float | None:
        """How long it tries to reach a server that is away; for ever when None."""
        return self._dialer.patience_s

    @patience_s.setter
    def patience_s(self, value: float | None) -> None:
        self._dialer.patience_s = value

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> None:
        """Waits until the server said that what is committed from now on arrives.

        Raises:
            RealtimeError: the server refused the subscription, or was away for longer than the patience.
        """
        while not self._state.is_ready and not self._closing.is_set():
            await self._step()

    async def save(self) -> None:
        """Says that all that was handed out is handled, and saves the cursor behind it.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        if self._keeper is not None:
            await self._keeper.handled(self.cursor)
            await self._keeper.save()

    async def close(self) -> None:
        """Ends the subscription; an iteration of it ends without an error.

        What is known to be handled is saved: all but what was handed out last.
        """
        self._closing.set()
        self._open_ones.discard(self)
        await self._hang_up()
        if self._keeper is not None:
            await self._keeper.save()

    async def end(self, error: RealtimeError) -> None:
        """Ends it; an iteration raises the error."""
        self._ended = error
        await self.close()

    async def __aiter__(self) -> AsyncIterator[ReceivedEvent | S]:
        """
        Raises:
            CoverageBroken: the frames do not join.
            CursorReset: the position cannot be served.
            Gap: messages are gone from the stream.
            RealtimeError: the subscription was closed with this error.
        """
        state = self._state
        left = self._left
        while True:
            if self._keeper is not None:
                await self._keeper.handled(state.cursor)
            if not left:
                item = await self._next()
                if item is None:
                    return
                if not isinstance(item, Batch):
                    yield cast("S", item)
                    continue
                self._batch = item
                left.extend(item.events)
            event = left.popleft()
            if not state.is_folding:
                state.cursor = event.cursor if left else self._batch.cursor
            yield event

    async def batches(self) -> AsyncIterator[Batch | S]:
        """The events of one frame after the other. Raises what the iteration of events does."""
        state = self._state
        while True:
            if self._keeper is not None:
                await self._keeper.handled(state.cursor)
            if self._left:  # an iteration of events was left in the middle of a frame
                batch = self._batch
                item: _Item | None = Batch(
                    tuple(self._left),
                    batch.cursor,
                    batch.transaction_open,
                    batch.in_snapshot,
                    batch.are_corrections,
                )
                self._left.clear()
            else:
                item = await self._next()
            if item is None:
                return
            if not isinstance(item, Batch):
                yield cast("S", item)
                continue
            if not state.is_folding:
                state.cursor = item.cursor
            yield item

    async def _next(self) -> _Item | None:
        """What is handed out next; None once the subscription was closed. What was handed out before is done with."""
        if self._in_hand is not None:
            connection, cost = self._in_hand
            self._in_hand = None
            connection.done(cost)
        while not self._ahead and not self._closing.is_set():
            await self._step()
        if self._ended is not None:
            raise self._ended
        return self._ahead.popleft() if self._ahead and not self._closing.is_set() else None

    async def _step(self) -> None:
        """Takes one frame, or connects. May be cancelled."""
        connection = self._connection
        if connection is None:
            await self._connect()
            return
        try:
            if self._keeper is not None and not connection.has_next:
                # What did not match since is done with as well.
                await self._keeper.handled(self._state.cursor)
                await self._keeper.save()
            frame, cost = await connection.next()
            if self._state.is_ready:
                self._dialer.proved()
            self._ahead.extend(self._state.take(frame))
            if cost[0]:
                self._in_hand = (connection, cost)
        except Unavailable as exc:
            self._dialer.lost(exc)
            await self._hang_up(exc)
        except RealtimeError as exc:
            if self._state.is_ready and self._dialer.outlived(exc):
                self._dialer.lost(Unavailable(exc.message, exc.mend))
                await self._hang_up(exc)
                return
            self._open_ones.discard(self)
            await self._hang_up(exc)
            raise

    async def _connect(self) -> None:
        if not self._is_loaded and self._keeper is not None:
            self._state.resume(await self._keeper.load())
            self._is_loaded = True
        if self._closing.is_set():
            return  # while the cursor was loaded
        self._open_ones.add(self)
        try:
            self._connection = await self._dialer.dial(self._state.next_start(), self._closing)
        except RealtimeError:
            self._open_ones.discard(self)
            raise
        if self._closing.is_set():
            await self._hang_up()

    async def _hang_up(self, cause: RealtimeError | None = None) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._state.lost(cause or Unavailable("the subscription was closed"))
            await connection.close()


Subscription: TypeAlias = BaseSubscription[Never]
"""Gives events alone."""

SignalSubscription: TypeAlias = BaseSubscription[Signal]
"""Gives events and signals."""

BroadcastSubscription: TypeAlias = BaseSubscription[Broadcast]
"""Gives events and broadcasts."""

BroadcastSignalSubscription: TypeAlias = BaseSubscription[Broadcast | Signal]
"""Gives events, broadcasts and signals."""
