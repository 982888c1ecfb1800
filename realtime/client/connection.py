"""One gRPC stream with one subscription on it, from its opening to its end.

Frames are read as they come and wait here for the iteration; the credit bounds what comes,
and what waits: beyond the window nothing is read. What the server may not wait for is answered here,
whatever the iteration does meanwhile: its question for another token. Nothing is lost by
cancelling a wait for a frame. Whatever ends the stream is raised after the last frame that came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_pb2 as pb
from realtime.client.aside import Aside
from realtime.client.channel import client_closed
from realtime.client.coverage import CoverageCheck
from realtime.client.ended import translated, why_ended
from realtime.client.token import Caller
from realtime.client.watchdog import Watchdog
from realtime.client.window import CreditWindow, Owed, charged
from realtime.errors import RealtimeError, Unavailable

METHOD = "/zephyr.events.v1.StreamService/Subscribe"
NAME = "s"
_WITHOUT_PLACE = ("auth_expiring", "scope_changed")
"""What may concern the whole stream, and then accounts for no part of it."""
_Call = grpc.aio.StreamStreamCall[pb.SubscribeRequest, bytes]


class Silent(Unavailable):
    """Nothing came for longer than the server is ever silent."""


class GoingAway(Unavailable):
    """The server is about to stop, and said when to come again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the server is about to stop")
        self.retry_after_s = retry_after_s


class Connection:
    """Made by ``open_connection``. Frames come from ``next``, each with what it costs of the credit."""

    def __init__(self, call: _Call, window: CreditWindow, silence_s: float, caller: Caller) -> None:
        self._call = call
        self._window = window
        self._caller = caller
        self._coverage = CoverageCheck()
        self._owed = Owed(window)
        self._inbox: deque[tuple[pb.SubscribeResponse, tuple[int, int], int]] = deque()
        self._inbox_bytes = 0
        self._aside = Aside()
        self._failure: RealtimeError | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._outbox: deque[pb.SubscribeRequest] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_writing = False
        self._is_renewing = False
        self._expires_at = 0
        self._silence_s = silence_s
        self._watchdog = Watchdog(silence_s, self._ring)
        self._spawn(self._read())

    @property
    def has_next(self) -> bool:
        """Whether ``next`` has not to wait."""
        return bool(self._inbox) or bool(self._aside) or self._failure is not None

    @property
    def waiting_bytes(self) -> int:
        """What was read and not yet taken."""
        return self._inbox_bytes

    async def next(self) -> tuple[pb.SubscribeResponse, tuple[int, int]]:
        """The next frame, and what it costs: entries and bytes. May be cancelled.

        Raises:
            Unavailable: the stream is over, and another may be opened.
            RealtimeError: it is over for good.
        """
        if self._inbox and self._aside.has_turn():
            return self._aside.take(), (0, 0)
        while not self._inbox:
            if self._aside:
                return self._aside.take(), (0, 0)
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        frame, cost, length = self._inbox.popleft()
        self._inbox_bytes -= length
        self._room.set()
        return frame, cost

    def done(self, cost: tuple[int, int]) -> None:
        """What cost so much is done with: the server may send as much more."""
        if self._failure is None and self._owed.add(*cost):
            grant = pb.CreditGrant(subscription_id=NAME, credit=self._owed.take())
            self.send(pb.SubscribeRequest(credit=grant))

    def send(self, request: pb.SubscribeRequest) -> None:
        """Sends in the order of the calls, and does not wait for it."""
        self._outbox.append(request)
        if not self._is_writing:
            self._is_writing = True
            self._spawn(self._write())

    def end(self, error: RealtimeError) -> None:
        """From now on ``next`` raises this, after the frames that came."""
        if self._failure is None:
            self._failure = error
        self._watchdog.stop()
        self._arrived.set()

    async def close(self) -> None:
        """Hangs up. Whoever waits for a frame is told that the stream is over."""
        self.end(Unavailable("the stream was ended here"))
        self._call.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ring(self) -> None:
        self.end(Silent(f"the server was silent for {self._silence_s:g} s", "see whether it can be reached"))

    async def _read(self) -> None:
        try:
            while self._failure is None:
                if self._inbox_bytes >= self._window.bytes:
                    await self._until_room()
                data = await self._call.read()
                if not isinstance(data, bytes):
                    raise await why_ended(self._call)
                self._watchdog.heard()
                self._take(data)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Of the call, not of this task: the channel was closed.
            self.end(Unavailable("the call was ended here"))
        except grpc.aio.AioRpcError as exc:
            self.end(translated(exc))
        except RealtimeError as exc:
            self.end(exc)

    async def _until_room(self) -> None:
        self._watchdog.pause()
        while self._inbox_bytes >= self._window.bytes:
            self._room.clear()
            await self._room.wait()
        self._watchdog.resume()

    def _take(self, data: bytes) -> None:
        try:
            frame = pb.SubscribeResponse.FromString(data)
        except DecodeError as exc:
            raise RealtimeError("the server sent what is no SubscribeResponse", "see its version") from exc
        kind = frame.WhichOneof("response")
        if kind == "going_away":
            raise GoingAway(frame.going_away.retry_after_ms / 1000)
        if kind == "auth_expiring":
            self._expiring(frame.auth_expiring.expires_at)
        if kind == "closed":
            pass  # what was refused has no place in the stream
        elif frame.subscription_id or kind not in _WITHOUT_PLACE:
            self._coverage.take(frame)
            if kind == "reset":
                self._coverage.restart()
        if kind == "broadcasts":
            self._aside.put(frame, len(data))
            self._arrived.set()
            return
        self._inbox.append((frame, charged(data, frame), len(data)))
        self._inbox_bytes += len(data)
        self._arrived.set()

    def _expiring(self, expires_at: int) -> None:
        """Sends another token, unless this is the answer to the last one: a later end, or none."""
        is_answer = self._is_renewing and (expires_at == 0 or expires_at > self._expires_at)
        self._expires_at = expires_at
        self._is_renewing = expires_at != 0 and not is_answer and self._caller.can_renew
        if self._is_renewing:
            self._spawn(self._renew())

    async def _renew(self) -> None:
        try:
            token = await self._caller.token()
        except RealtimeError as exc:
            self.end(exc)
            return
        self.send(pb.SubscribeRequest(reauth=pb.Reauthentication(token=token)))

    async def _write(self) -> None:
        try:
            while self._outbox:
                await self._call.write(self._outbox.popleft())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self._outbox.clear()  # the call is over: who reads from it says why
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._is_writing = False


async def open_connection(
    channel: grpc.aio.Channel,
    request: pb.OpenSubscription,
    window: CreditWindow,
    silence_s: float,
    caller: Caller,
) -> Connection:
    """Opens a stream and asks for a subscription on it.

    Raises:
        RealtimeError: the client was closed.
    """
    metadata = await caller.metadata()
    method: Any = channel.stream_stream(METHOD, request_serializer=pb.SubscribeRequest.SerializeToString)
    try:
        call = method(metadata=metadata)
    except grpc.aio.UsageError as exc:
        raise client_closed() from exc
    connection = Connection(call, window, silence_s, caller)
    request.subscription_id = NAME
    connection.send(pb.SubscribeRequest(open=request))
    return connection
