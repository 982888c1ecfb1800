"""One subscription of a client: typed events, in order, across reconnections.

Each connection is one gRPC stream with one subscription on it. Frames must join: a frame
that does not begin where the one before ended raises ``CoverageBroken``, it is not skipped.
When the server goes away, or is silent for longer than it ever is, the subscription
connects anew after the last frame that it handed out.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc

from protos.events.v1 import stream_pb2 as pb
from realtime.client.received import ReceivedEvent
from realtime.client.start import Start
from realtime.errors import CoverageBroken, RealtimeError, Unavailable
from realtime.filters import Filter
from realtime.status import from_error, from_rpc_error

_NAME = "s"
_SILENCE_S = 30.0
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 5.0
_Call = grpc.aio.StreamStreamCall[pb.SubscribeRequest, pb.SubscribeResponse]


class Subscription:
    """Iterate it for events, or ``batches()`` for lists of them. Use it as an async context manager.

    An iteration may be left and begun again: it goes on where it was. ``cursor`` is the
    place behind what was handed out.
    """

    def __init__(self, stub: Any, wanted: Filter, start: Start, patience_s: float | None = None) -> None:
        self._stub = stub
        self._filter = wanted
        self._start = start
        self.patience_s = patience_s
        self._call: _Call | None = None
        self._through: int | None = None
        self._left: deque[ReceivedEvent] = deque()
        self._left_cursor = b""
        self._is_closed = False
        self._was_ready = False
        self.cursor = start.cursor
        self.is_caught_up = False
        self.source = pb.SourcePosition()
        self.reconnections = 0

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
        if self._call is None:
            await self._connect()

    async def close(self) -> None:
        """Ends the subscription; an iteration of it ends without an error."""
        self._is_closed = True
        self._hang_up()

    async def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        while self._left or await self._refill():
            received = self._left.popleft()
            self.cursor = received.cursor if self._left else self._left_cursor
            yield received

    async def batches(self) -> AsyncIterator[list[ReceivedEvent]]:
        """The events of one frame after the other.

        Raises:
            RealtimeError: the subscription was closed with this error.
            CoverageBroken: the frames have a gap.
        """
        while self._left or await self._refill():
            batch = list(self._left)
            self._left.clear()
            self.cursor = self._left_cursor
            yield batch

    async def _refill(self) -> bool:
        """Whether there is a next frame with events; they are in ``_left`` then."""
        while not self._is_closed:
            frame = await self._next_frame()
            if frame is None:
                break
            self._left.extend(
                ReceivedEvent(item.event, item.sequence, item.cursor) for item in frame.events.events
            )
            if self._left:
                self._left_cursor = frame.cursor
                return True
            self.cursor = frame.cursor or self.cursor
        return False

    async def _next_frame(self) -> pb.SubscribeResponse | None:
        """The next frame, from a new connection if need be; None once the subscription was closed."""
        while not self._is_closed:
            if self._call is None:
                await self._connect()
                continue
            try:
                frame = await self._receive()
                if frame.WhichOneof("response") != "going_away":
                    return self._take(frame)
                pause = random.uniform(0, frame.going_away.retry_after_ms / 1000)
            except Unavailable:
                pause = 0.0  # the server is away: the next turn of the loop connects anew
            self._hang_up()
            await asyncio.sleep(pause)
        return None

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _connect(self) -> None:
        """Opens the stream and waits for ``ready``; tries again while the server is away."""
        pause = _PAUSE_MIN_S
        deadline = None
        if self.patience_s is not None:
            deadline = asyncio.get_running_loop().time() + self.patience_s
        while True:
            try:
                await self._open()
                return
            except Unavailable:
                self._hang_up()
                if self._is_closed:
                    return
                if deadline is not None and asyncio.get_running_loop().time() + pause > deadline:
                    raise
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(pause * 2, _PAUSE_MAX_S)
            except BaseException:
                self._hang_up()
                raise

    async def _open(self) -> None:
        start = Start.after(self.cursor) if self.cursor else self._start
        try:
            self._call = self._stub.Subscribe()
        except grpc.aio.UsageError as exc:
            raise RealtimeError("the client was closed", "open another") from exc
        await self._write(
            pb.SubscribeRequest(
                open=pb.OpenSubscription(
                    subscription_id=_NAME,
                    filter=pb.Filter(
                        workspace_ids=sorted(self._filter.workspaces),
                        kinds=sorted(self._filter.kinds),
                        entity_ids=sorted(self._filter.entities),
                    ),
                    start=start.message(),
                )
            )
        )
        self._through = None
        frame = self._take(await self._receive())
        while frame.WhichOneof("response") != "ready":
            if frame.WhichOneof("response") == "going_away":
                raise Unavailable("the server is about to stop")
            frame = self._take(await self._receive())  # after a reset comes the end, with the reason
        self.reconnections += self._was_ready
        self._was_ready = True
        # A live subscription that breaks before its first event goes on where it was ready.
        self.cursor = self.cursor or frame.cursor

    async def _write(self, request: pb.SubscribeRequest) -> None:
        assert self._call is not None
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
            raise await self._failure() from exc

    async def _receive(self) -> pb.SubscribeResponse:
        assert self._call is not None
        try:
            async with asyncio.timeout(_SILENCE_S):
                frame = await self._call.read()
        except TimeoutError as exc:
            raise Unavailable(f"the server was silent for {_SILENCE_S:g} s") from exc
        except asyncio.CancelledError as exc:
            # gRPC ends the call with the read. The next read begins a new one, and loses nothing.
            self._hang_up()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the call was ended here") from exc  # by close(), not by cancelling the task
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc
        if frame is grpc.aio.EOF:
            raise await self._failure()
        assert isinstance(frame, pb.SubscribeResponse)
        return frame

    async def _failure(self) -> RealtimeError:
        """Why the call is over: its status, or that the server ended it."""
        assert self._call is not None
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return Unavailable("the server ended the stream")
        details = await self._call.details()
        error = grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(), details
        )
        return from_rpc_error(error)

    def _take(self, frame: pb.SubscribeResponse) -> pb.SubscribeResponse:
        """Checks a frame and notes what it says.

        Raises:
            CoverageBroken: it does not begin where the one before ended.
            RealtimeError: it closes the subscription.
        """
        kind = frame.WhichOneof("response")
        if kind == "closed":
            error = frame.closed.error
            raise from_error(error) if error.code else Unavailable("the subscription was closed")
        if frame.HasField("coverage"):
            coverage = frame.coverage
            if self._through is not None and coverage.after != self._through:
                raise CoverageBroken(
                    f"a frame begins after {coverage.after}, the one before ended at {self._through}"
                )
            if coverage.matched != len(frame.events.events):
                raise CoverageBroken(
                    f"a frame says {coverage.matched} events and has {len(frame.events.events)}"
                )
            self._through = coverage.through
        if kind == "caught_up":
            self.is_caught_up = True
            self.source = frame.caught_up.source
        elif kind == "fell_behind":
            self.is_caught_up = False
        elif kind == "progress":
            self.source = frame.progress.source
        return frame
