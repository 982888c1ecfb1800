"""One client's stream: many subscriptions on it.

One loop receives requests, one loop sends frames by turns (``turns.py``), and each subscription
has a task that brings it to the live edge and back. A fault of a subscription closes that subscription.
``access.py`` says who calls and what they may see, where there is a policy.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_pb2 as pb
from realtime.budget import Budget
from realtime.errors import ArgumentInvalid, LimitExceeded, RealtimeError
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.services.access import StreamAccess
from realtime.services.turns import Turns
from realtime.status import to_error
from realtime.subscriber import Subscriber
from realtime.subscription import Feed, end, keep_up
from realtime.terms import Terms, amounts, compile_terms

log = structlog.get_logger("stream")

_NAME_BYTES = 64
_REQUEST_BYTES = 1024 * 1024
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of one client's stream. ``progress_s`` is the longest silence on it; ``max_bytes`` bounds what
    was read back for all of its subscriptions."""

    max_subscriptions: int = 100
    max_answers: int = 200
    progress_s: float = 10.0
    max_bytes: int = 16 * 1024 * 1024
    mailbox: MailboxLimits = field(default_factory=MailboxLimits)


class ClientStream:
    """One client's stream. ``access`` is None when all may see everything."""

    def __init__(
        self,
        context: Context,
        feed: Feed,
        kinds: frozenset[str],
        limits: StreamLimits,
        access: StreamAccess | None = None,
    ) -> None:
        self._context = context
        self._feed = feed
        self._kinds = kinds
        self._limits = limits
        self._access = access
        self._subscribers: dict[str, Subscriber] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._following: dict[Subscriber, asyncio.Task[None]] = {}
        self._budget = Budget(limits.max_bytes)
        self._turns = Turns()
        self._announcements: deque[bytes] = deque()
        self._sent = asyncio.Event()
        self._is_ending = False
        self._is_half_closed = False

    async def run(self) -> None:
        """Receives and sends until the client is done and everything is sent, or it went away."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            own = []
            if self._access is not None:
                own.append(tasks.create_task(self._access.run(tasks, self._end, self._announce)))
            own.append(tasks.create_task(self._receive()))
            try:
                await self._send()
            finally:
                self._stop_subscriptions()
                self._turns.close()
                for task in (*own, *self._following.values()):
                    task.cancel()

    def go_away(self) -> None:
        """Ends the stream after what is queued."""
        self._is_ending = True
        self._stop_subscriptions()
        self._turns.flush()

    def _stop_subscriptions(self) -> None:
        for subscriber in self._subscribers.values():
            self._feed.hub.detach(subscriber)
            subscriber.stop()

    async def _receive(self) -> None:
        while True:
            while self._owes_answers():
                self._sent.clear()
                await self._sent.wait()
            data = await self._context.read()
            if data is grpc.aio.EOF:
                # The client asks nothing more; it listens while a subscription is left.
                self._is_half_closed = True
                self._turns.wake()
                return
            await self._serve(data)

    async def _serve(self, data: bytes) -> None:
        if len(data) > _REQUEST_BYTES:
            text = f"a request of {len(data)} bytes, at most {_REQUEST_BYTES} are possible"
            self._refuse("", LimitExceeded(text, "ask for less at once"))
            return
        try:
            request = pb.SubscribeRequest.FromString(data)
        except DecodeError:
            self._refuse("", ArgumentInvalid("request", "it is no SubscribeRequest"))
            return
        kind = request.WhichOneof("request")
        if kind == "open":
            self._open(request.open)
        elif kind == "credit":
            self._grant(request.credit)
        elif kind == "close":
            self._close(request.close.subscription_id)
        elif kind == "progress":
            self._progress(request.progress)
        elif kind == "reauth":
            await self._reauthenticate(request.reauth.token)
        else:
            self._refuse(
                "",
                ArgumentInvalid(
                    "request", "it asks for nothing: no open, close, credit, progress or reauth is in it"
                ),
            )

    def _owes_answers(self) -> bool:
        """Whether so many answers wait that no request is read before some are sent."""
        return len(self._turns) + len(self._announcements) > self._limits.max_answers or any(
            subscriber.queued > self._limits.mailbox.max_events + self._limits.max_answers
            for subscriber in self._subscribers.values()
        )

    def _open(self, request: pb.OpenSubscription) -> None:
        name = request.subscription_id
        if name in self._subscribers:
            # Not under its name: that would say that the one which runs is over.
            error = ArgumentInvalid("open.subscription_id", f"{name!r} is open already", "choose another")
            self._refuse("", error)
            return
        try:
            if not 1 <= len(name.encode()) <= _NAME_BYTES:
                raise ArgumentInvalid("open.subscription_id", f"it must have 1 to {_NAME_BYTES} bytes")
            if len(self._subscribers) >= self._limits.max_subscriptions:
                raise LimitExceeded(
                    f"a stream has at most {self._limits.max_subscriptions} subscriptions",
                    "open another stream",
                )
            terms = compile_terms(request, self._kinds)
        except RealtimeError as exc:
            self._refuse(name, exc)
            return
        subscriber = Subscriber(
            name, terms, self._limits.mailbox, lambda: self._turns.note(subscriber), self._budget
        )
        self._subscribers[name] = subscriber
        assert self._tasks is not None
        task = self._tasks.create_task(self._follow(subscriber, request.start))
        self._following[subscriber] = task
        task.add_done_callback(lambda _: self._following.pop(subscriber, None))

    async def _follow(self, subscriber: Subscriber, start: pb.Start) -> None:
        feed, access = self._feed, self._access
        try:
            if access is not None:
                await access.admit(subscriber)
            point = await feed.start_point(start)
        except RealtimeError as exc:
            await end(subscriber, exc, feed)
            return
        if subscriber.is_closed:
            return
        subscriber.begin(point, feed.hub.epoch)
        subscriber.say(pb.Ready(epoch=feed.hub.epoch, source=feed.hub.source_position()))
        if access is not None:
            access.tell_lost(subscriber)
        await keep_up(subscriber, feed)

    def _close(self, name: str) -> None:
        subscriber = self._subscribers.get(name)
        if subscriber is None:
            self._refuse(name, ArgumentInvalid("close.subscription_id", f"{name!r} is not open"))
        else:
            self._end(subscriber, pb.Closed())

    def _end(self, subscriber: Subscriber, closed: pb.Closed) -> None:
        self._feed.hub.detach(subscriber)
        subscriber.close(closed)
        following = self._following.get(subscriber)
        if following is not None:
            following.cancel()  # it may be waiting for the broker still

    def _grant(self, request: pb.CreditGrant) -> None:
        subscriber = self._subscribers.get(request.subscription_id)
        if subscriber is None:
            error = ArgumentInvalid("credit.subscription_id", f"{request.subscription_id!r} is not open")
            self._refuse(request.subscription_id, error)
            return
        try:
            subscriber.grant(*amounts(request.credit))
        except ArgumentInvalid as exc:
            self._end(subscriber, pb.Closed(error=to_error(exc)))

    def _progress(self, request: pb.ProgressQuery) -> None:
        subscriber = self._subscribers.get(request.subscription_id)
        if len(request.nonce.encode()) > _NAME_BYTES:
            error = ArgumentInvalid("progress.nonce", f"it may have {_NAME_BYTES} bytes")
            self._refuse("", error)
        elif subscriber is None:
            error = ArgumentInvalid("progress.subscription_id", f"{request.subscription_id!r} is not open")
            self._refuse(request.subscription_id, error)
        elif not subscriber.is_closed:
            subscriber.say(pb.Progress(nonce=request.nonce, source=self._feed.hub.source_position()))

    async def _reauthenticate(self, token: str) -> None:
        """Nothing else is read meanwhile: what is asked after it is asked by the new caller."""
        if self._access is not None:
            await self._access.renew(token)
        else:
            self._announce(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring()))

    def _announce(self, frame: pb.SubscribeResponse) -> None:
        """Queues a frame that concerns the whole stream."""
        self._announcements.append(frame.SerializeToString())
        self._turns.wake()

    def _refuse(self, name: str, error: RealtimeError) -> None:
        """Answers a request that concerns no open subscription; a name that is too long is not repeated."""
        name = name if len(name.encode()) <= _NAME_BYTES else ""
        refused = Subscriber(
            name, Terms(Filter()), self._limits.mailbox, lambda: self._turns.note(refused), self._budget
        )
        refused.close(pb.Closed(error=to_error(error)))

    async def _send(self) -> None:
        """Each subscription that has something gets one frame in its turn."""
        loop = asyncio.get_running_loop()
        progress_at = loop.time() + self._limits.progress_s
        while True:
            if loop.time() >= progress_at:
                self._tell_progress()
                progress_at = loop.time() + self._limits.progress_s
            while self._announcements:
                await self._context.write(self._announcements.popleft())
                self._sent.set()
            subscriber = self._turns.next()
            if subscriber is None:
                if self._is_ending:
                    break
                if self._is_half_closed and not self._subscribers:
                    return
                await self._turns.filled(progress_at)
                continue
            if self._access is not None and not self._access.lets_pass(subscriber):
                self._turns.skip(subscriber)
                continue
            frame = subscriber.take_frame()
            await self._context.write(frame)
            self._turns.sent(subscriber, len(frame))
            self._sent.set()
            if subscriber.is_closed and not subscriber.has_frames:
                self._forget(subscriber)
        retry_after_ms = random.randint(100, 2000)
        await self._context.write(
            pb.SubscribeResponse(going_away=pb.GoingAway(retry_after_ms=retry_after_ms)).SerializeToString()
        )

    def _forget(self, subscriber: Subscriber) -> None:
        subscriber.release()
        if self._access is not None:
            self._access.forget(subscriber)
        self._turns.forget(subscriber)
        if self._subscribers.get(subscriber.name) is subscriber:
            del self._subscribers[subscriber.name]

    def _tell_progress(self) -> None:
        """To each subscription that has nothing to send, or may not: it is alive, and its cursor moves on.
        Without one the stream itself says that it is alive."""
        if not self._subscribers:
            self._announce(
                pb.SubscribeResponse(progress=pb.Progress(source=self._feed.hub.source_position()))
            )
        for subscriber in self._subscribers.values():
            if subscriber.epoch and not subscriber.is_closed and not subscriber.has_frames:
                progress = pb.Progress(source=self._feed.hub.source_position())
                subscriber.say(progress, in_turn=not subscriber.is_paused)
