"""``PublishStream``: one client's events in their order, and a result for each in the same order.

One loop receives, as far as the window allows, and puts events in line; one loop sends results as they come.
A fault of one event is its result. What ends the stream is said by ``closed``, after all results that there are.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from protos.events.v1 import publish_pb2 as pb
from realtime.errors import ArgumentInvalid, RealtimeError, Unavailable
from realtime.publish import rules
from realtime.publish.access import PublishAccess
from realtime.publish.draft import Ask
from realtime.publish.item import Flow, Item, Unit, settled_run, size_of
from realtime.publish.line import Line
from realtime.publish.publisher import Publisher, actor_of
from realtime.publish.versions import expected_version
from realtime.publish.window import Window
from realtime.services.publish_results import results_of
from realtime.status import to_error

log = structlog.get_logger("publish")

_MOST_RESULTS = 1000
_MOST_EVENTS = 1000
_SLICE = 250
"""Events that are made ready in one turn of the loop: about a millisecond of work."""
_OPEN_S = 30.0
_LAST_RESULTS_S = 5.0
"""For so long a stream that is to end waits for what is under way."""
Context = grpc.aio.ServicerContext[Any, Any]


class PublishStream:
    """One client's stream."""

    def __init__(self, context: Context, publisher: Publisher, access: PublishAccess) -> None:
        self._context = context
        self._publisher = publisher
        self._access = access
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._flow = Flow(self._changed.set)
        self._pending: deque[Item] = deque()
        self._pending_bytes = 0
        self._opened: pb.ProducerOpened | None = None
        self._is_half_closed = False
        self._farewell: BaseException | None = None
        self._leaves_at: float | None = None
        self._line: Line | None = None
        self._window: Window | None = None
        self._ask: Ask | None = None

    async def run(self) -> None:
        """Until the client is done and has all results, or it went away, or the stream is closed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._receive())
                try:
                    await self._send()
                finally:
                    receiving.cancel()
        finally:
            self._flow.fail(Unavailable("the stream is over"))
            if self._line is not None:
                self._line.producer.flows.discard(self._flow)
            if self._window is not None:
                self._window.close()

    def go_away(self) -> None:
        """Ends the stream after the results of what is under way."""
        if self._leaves_at is None:
            self._leaves_at = asyncio.get_running_loop().time() + _LAST_RESULTS_S
        self._changed.set()

    async def _receive(self) -> None:
        try:
            data = await self._context.read()
            if data is not grpc.aio.EOF:
                await self._open(data)
            while data is not grpc.aio.EOF and await self._has_room():
                data = await self._context.read()
                if data is not grpc.aio.EOF:
                    await self._take(data)
            self._is_half_closed = data is grpc.aio.EOF
        except RealtimeError as exc:
            self._farewell = exc
        except Exception as exc:
            log.error("a stream of publishing failed", exc_info=exc)
            self._farewell = exc
        self._changed.set()

    async def _has_room(self) -> bool:
        """Waits for it; False when nothing is to be read any more."""
        assert self._window is not None
        while not self._window.has_room(len(self._pending), self._pending_bytes):
            self._room.clear()
            await self._room.wait()
        return self._leaves_at is None and self._flow.failure is None

    async def _open(self, data: bytes) -> None:
        request = _parse(data)
        if request.WhichOneof("request") != "open":
            raise ArgumentInvalid("request", "the first request must be open", "send open, then events")
        rules.check(request.open, "open.")
        publisher = self._publisher
        producer_id = request.open.producer_id
        self._ask = Ask(
            producer_id,
            publisher.source(self._access, producer_id),
            actor_of(self._access),
            rules.check,
            None,
            lambda expectation: expected_version("expectation", expectation, publisher.places.epoch),
        )
        self._window = Window(publisher.allowance)
        opened = pb.ProducerOpened(window=self._grant())
        try:
            async with asyncio.timeout(_OPEN_S):
                await publisher.ready()
                if producer_id:
                    line = publisher.producers.line(producer_id)
                    self._line = line
                    opened.session = await line.producer.begin_session(
                        self._flow, request.open.instance, resumes=request.open.resumes
                    )
                    opened.reached = line.producer.state.reached
                else:
                    self._line = publisher.producers.anonymous()
        except TimeoutError as exc:
            raise Unavailable("the stream could not be read in time", "try again") from exc
        self._opened = opened
        self._changed.set()

    def _grant(self) -> pb.PublishWindow:
        assert self._window is not None
        return pb.PublishWindow(events=self._window.events, bytes=self._window.bytes)

    async def _take(self, data: bytes) -> None:
        request = _parse(data)
        kind = request.WhichOneof("request")
        if kind != "events":
            text = "the stream is open already" if kind == "open" else "it asks for nothing"
            raise ArgumentInvalid("request", text, "send events")
        await self._access.refresh()
        events = request.events.events
        if len(events) > _MOST_EVENTS:
            raise ArgumentInvalid(
                "events", f"it has {len(events)} events, at most {_MOST_EVENTS} are possible"
            )
        assert self._line is not None
        assert self._ask is not None
        self._ask.checks_rules = not rules.request_holds(request.events)
        self._ask.admit = self._access.check if self._access.is_limited else None
        for at in range(0, len(events), _SLICE):
            items = self._publisher.drafter.items(events[at : at + _SLICE], self._ask)
            self._pending.extend(items)
            self._pending_bytes += size_of(items)
            self._line.put(Unit(self._flow, items))
            self._changed.set()
            await asyncio.sleep(0)

    async def _send(self) -> None:
        pending = self._pending
        while True:
            opened, self._opened = self._opened, None
            if opened is not None:
                await self._write(pb.PublishStreamResponse(opened=opened))
            run = settled_run(pending, _MOST_RESULTS)
            if run:
                try:
                    await self._tell(run)
                except RealtimeError as exc:
                    self._flow.fail(exc)
                    pending.clear()
                continue
            ended_by = self._flow.failure or (self._farewell if not pending else None)
            if ended_by is not None:
                closed = pb.ProducerClosed(error=to_error(ended_by))
                await self._write(pb.PublishStreamResponse(closed=closed))
                return
            if self._is_half_closed and not pending:
                return
            if not await self._wait():
                going_away = pb.PublisherGoingAway(retry_after_ms=random.randint(100, 2000))
                await self._write(pb.PublishStreamResponse(going_away=going_away))
                return

    async def _wait(self) -> bool:
        """Until something changed; False when the server is to stop, and has waited for what is under way."""
        leaves_at = self._leaves_at
        if leaves_at is not None and not self._pending:
            return False
        self._changed.clear()
        try:
            async with asyncio.timeout_at(leaves_at):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _tell(self, run: list[Item]) -> None:
        stored = [item for item in run if item.stored_at]
        cursors = await self._publisher.places.cursors([item.stored_at for item in stored])
        await self._context.write(results_of(run, cursors))
        line, window = self._line, self._window
        assert line is not None
        assert window is not None
        is_other = window.note(line.batches, line.batch_s, len(self._pending) + len(run), self._pending_bytes)
        self._pending_bytes -= size_of(run)
        self._room.set()
        if is_other:
            await self._write(pb.PublishStreamResponse(window=self._grant()))

    async def _write(self, response: pb.PublishStreamResponse) -> None:
        await self._context.write(response.SerializeToString())


def _parse(data: bytes) -> pb.PublishStreamRequest:
    try:
        return pb.PublishStreamRequest.FromString(data)
    except DecodeError as exc:
        raise ArgumentInvalid("request", "it is no PublishStreamRequest") from exc
