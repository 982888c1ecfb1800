"""One gRPC stream of a publisher, from its opening to its end.

It sends what waits, as much as waits in one request, and settles what gets a result. Another
session may go on where this one ended, unless another program's began meanwhile
(docs/decisions/027-a-publisher-that-comes-back-says-so.md).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.events.v1 import publish_pb2 as pb
from realtime.client.channel import client_closed
from realtime.client.connection import GoingAway
from realtime.client.ended import translated, why_ended
from realtime.client.published import Publication
from realtime.client.unacknowledged import Unacknowledged
from realtime.errors import RealtimeError, Unavailable
from realtime.status import from_error

METHOD = "/zephyr.events.v1.PublisherService/PublishStream"


class PublishSession:
    """Of one producer. ``on_settled`` is told what got a result, after each answer."""

    def __init__(
        self,
        producer_id: str,
        unacknowledged: Unacknowledged,
        on_settled: Callable[[list[Publication]], None],
    ) -> None:
        self._opening = pb.OpenProducer(producer_id=producer_id, instance=uuid.uuid4().hex)
        self._unacknowledged = unacknowledged
        self._on_settled = on_settled
        self._waits = asyncio.Event()

    def wake(self) -> None:
        """Something waits to be sent."""
        self._waits.set()

    async def run(
        self,
        channel: grpc.aio.Channel,
        metadata: tuple[tuple[str, str], ...],
        on_opened: Callable[[pb.ProducerOpened], None],
    ) -> None:
        """Opens the session and serves it until it ends, which is always told by an error.

        Raises:
            Unavailable: the stream is over, and another may be opened.
            RealtimeError: the session is over for good.
        """
        method: Any = channel.stream_stream(METHOD)
        try:
            call = method(metadata=metadata)
        except grpc.aio.UsageError as exc:
            raise client_closed() from exc
        writing: asyncio.Task[None] | None = None
        try:
            await self._open(call, on_opened)
            writing = asyncio.create_task(self._write(call))
            while True:
                self._take(await self._read(call))
        except grpc.aio.AioRpcError as exc:
            raise translated(exc) from exc
        except asyncio.InvalidStateError:  # it was over before the first request was written
            raise await why_ended(call) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Of the call, not of this task: the channel was closed.
            raise Unavailable("the call was ended here") from None
        finally:
            call.cancel()
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _open(self, call: Any, on_opened: Callable[[pb.ProducerOpened], None]) -> None:
        request = pb.PublishStreamRequest(open=self._opening)
        await call.write(request.SerializeToString())
        response = await self._read(call)
        if response.WhichOneof("response") == "opened":
            # From now on events may be under way, and another producer's at the same sequences would be theirs.
            self._opening.resumes = True
            on_opened(response.opened)
        else:
            self._take(response)
            raise RealtimeError("the server did not say that the session began", "see the server's version")

    async def _read(self, call: Any) -> pb.PublishStreamResponse:
        data = await call.read()
        if not isinstance(data, bytes):
            raise await why_ended(call)
        try:
            return pb.PublishStreamResponse.FromString(data)
        except DecodeError as exc:
            raise RealtimeError(
                "the server sent what is no PublishStreamResponse", "see its version"
            ) from exc

    def _take(self, response: pb.PublishStreamResponse) -> None:
        kind = response.WhichOneof("response")
        if kind == "results":
            self._settle(response.results)
        elif kind == "window":
            self._unacknowledged.grant(response.window)
            self._on_settled([])
        elif kind == "closed":
            raise from_error(response.closed.error)
        elif kind == "going_away":
            raise GoingAway(response.going_away.retry_after_ms / 1000)

    def _settle(self, results: pb.PublishResults) -> None:
        settle = self._unacknowledged.settle
        settled: list[Publication] = []
        try:
            for result in results.results:
                settled.append(settle(result))  # noqa: PERF401  # those before a fault count
        finally:
            self._on_settled(settled)

    async def _write(self, call: Any) -> None:
        try:
            while True:
                request = self._unacknowledged.request()
                if request:
                    await call.write(request)
                else:
                    self._waits.clear()
                    await self._waits.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call is over: who reads from it says why
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
