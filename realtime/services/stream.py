"""One client's stream: many subscriptions on it.

The call's own task receives requests. Another one sends (``sender.py``) and is there only while there is
something to send; one brings a subscription to the live edge, and ends there. So an idle stream is one task that
reads (docs/decisions/020), and its heartbeat is a slot in the wheel of all (``heartbeats.py``). A fault of a subscription closes
that subscription. ``access.py`` says who calls and what they may see, where there is a policy.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_pb2 as pb
from realtime.broadcast.row import Row
from realtime.budget import Budget
from realtime.errors import ArgumentInvalid, LimitExceeded, RealtimeError
from realtime.filters import Filter
from realtime.limits import StreamLimits
from realtime.services.access import StreamAccess
from realtime.services.errands import Errands
from realtime.services.heartbeats import SLOTS
from realtime.services.sender import Context, Sender
from realtime.status import to_error
from realtime.subscriber import Subscriber
from realtime.subscription import Feed, end, reach
from realtime.terms import Terms, amounts, compile_terms

_NAME_BYTES = 64
_TOLD_IN_TURN = 10
"""So many subscriptions of a stream are each told how far they are in every ``progress_s``; of more, as many."""
_REQUEST_BYTES = 1024 * 1024


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
        self._errands = Errands(self._fail)
        self._following: dict[Subscriber, asyncio.Task[None]] = {}
        self._budget = Budget(limits.max_bytes)
        self._sender = Sender(context, access, feed.catch_up.pace, self._errands, self._forget, self._rest)
        self._main: asyncio.Task[Any] | None = None
        self._overfull: Subscriber | None = None
        self._failure: BaseException | None = None
        self._is_ending = False
        self._is_half_closed = False
        self._is_over = False
        self.slot = 0
        """Where it stands in the wheel of heartbeats."""

    async def run(self) -> None:
        """Receives and sends until the client is done and everything is sent, or it went away."""
        self._main = main = asyncio.current_task()
        assert main is not None
        try:
            if self._access is not None:
                self._errands.create_task(self._access.run(self._errands, self._end, self._sender.announce))
            await self._receive()
            # The client asks nothing more; it listens while a subscription is left.
            self._is_half_closed = True
            self._sender.wake()
            await asyncio.get_running_loop().create_future()  # until ``_finish``
        except asyncio.CancelledError:
            if not self._is_over or main.uncancel():
                raise  # it was not ``_finish``, or not it alone
        finally:
            self._is_over = True
            self._stop_subscriptions()
            self._sender.close()
            await self._errands.close()
            self._subscribers.clear()
            self._main = None
        if self._failure is not None:
            raise self._failure

    def go_away(self) -> None:
        """Ends the stream after what is queued."""
        self._is_ending = True
        self._stop_subscriptions()
        away = pb.GoingAway(retry_after_ms=random.randint(100, 2000))
        self._sender.farewell = pb.SubscribeResponse(going_away=away).SerializeToString()
        self._sender.turns.flush()
        self._sender.wake()

    def beat(self) -> int:
        """Tells the subscription whose turn it is how far it is: it is alive, and its cursor moves on. Not one
        that has something to send. Without one the stream itself says that it is alive."""
        if self._is_ending:
            return SLOTS
        if not self._subscribers:
            self._say_alive()
            return SLOTS
        name, subscriber = next(iter(self._subscribers.items()))
        del self._subscribers[name]
        self._subscribers[name] = subscriber  # the others come before it again
        if not subscriber.epoch:
            self._say_alive()
        elif not (subscriber.is_closed or subscriber.has_frames):
            progress = pb.Progress(source=self._feed.hub.source_position())
            subscriber.say(progress, in_turn=not subscriber.is_paused)
        return SLOTS // min(len(self._subscribers), _TOLD_IN_TURN)

    def _say_alive(self) -> None:
        if not self._sender.is_busy:
            progress = pb.Progress(source=self._feed.hub.source_position())
            self._sender.announce(pb.SubscribeResponse(progress=progress))

    def _stop_subscriptions(self) -> None:
        for subscriber in self._subscribers.values():
            subscriber.stop()
            self._feed.hub.detach(subscriber)

    def _fail(self, failure: BaseException) -> None:
        """A task of this stream failed: the stream ends with it."""
        self._failure = self._failure or failure
        self._finish()

    def _finish(self) -> None:
        """Ends ``run``, whatever it waits for."""
        if not self._is_over and self._main is not None:
            self._is_over = True
            self._main.cancel()

    async def _receive(self) -> None:
        while True:
            while self._owes_answers():
                await self._sender.sent()
            data = await self._context.read()
            if data is grpc.aio.EOF:
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
        if self._sender.queued > self._limits.max_answers:
            return True
        asked = self._overfull
        if asked is not None and asked.queued <= self._limits.mailbox.max_events + self._limits.max_answers:
            self._overfull = asked = None
        return asked is not None

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
        subscriber = self._subscriber(name, terms)
        self._subscribers[name] = subscriber
        self._following[subscriber] = self._errands.create_task(self._begin(subscriber, request.start))

    def _subscriber(self, name: str, terms: Terms) -> Subscriber:
        return Subscriber(
            name, terms, self._limits.mailbox, self._sender.turns.note, self._budget, self._lags
        )

    def _lags(self, subscriber: Subscriber) -> None:
        """It left the live edge: somebody has to bring it back, unless that is under way."""
        if not (subscriber.is_closed or self._is_over or subscriber in self._following):
            self._following[subscriber] = self._errands.create_task(self._return(subscriber))

    async def _begin(self, subscriber: Subscriber, start: pb.Start) -> None:
        feed, access = self._feed, self._access
        try:
            if access is not None:
                await access.admit(subscriber)
            point = await feed.start_point(start)
        except RealtimeError as exc:
            await end(subscriber, exc, feed)
        else:
            if not subscriber.is_closed:
                subscriber.begin(point, feed.hub.epoch)
                subscriber.say(pb.Ready(epoch=feed.hub.epoch, source=feed.hub.source_position()))
                if access is not None:
                    access.tell_lost(subscriber)
                if subscriber.terms.broadcasts:
                    self._listen(subscriber)
                await reach(subscriber, feed)
        self._arrived(subscriber)

    async def _return(self, subscriber: Subscriber) -> None:
        await reach(subscriber, self._feed)
        self._arrived(subscriber)

    def _arrived(self, subscriber: Subscriber) -> None:
        """It is at the live edge, or closed. Called in the step that saw it: who leaves the edge from now on has
        nobody under way."""
        self._following.pop(subscriber, None)
        if not self._following:
            self._following = {}  # one that was filled keeps its room

    def _listen(self, subscriber: Subscriber) -> None:
        if self._feed.audience is not None:
            if self._sender.row is None:
                may_send = _everybody if self._access is None else self._access.lets_pass
                self._sender.row = Row(self._feed.audience, self._sender.wake, may_send)
            self._sender.row.open(subscriber)

    def _close(self, name: str) -> None:
        subscriber = self._subscribers.get(name)
        if subscriber is None:
            self._refuse(name, ArgumentInvalid("close.subscription_id", f"{name!r} is not open"))
        else:
            self._end(subscriber, pb.Closed())

    def _end(self, subscriber: Subscriber, closed: pb.Closed) -> None:
        subscriber.close(closed)
        self._feed.hub.detach(subscriber)
        following = self._following.pop(subscriber, None)
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
        if self._sender.row is not None:
            self._sender.row.look()

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
            self._overfull = subscriber  # if it is

    async def _reauthenticate(self, token: str) -> None:
        """Nothing else is read meanwhile: what is asked after it is asked by the new caller."""
        if self._access is not None:
            await self._access.renew(token)
        else:
            self._sender.announce(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring()))

    def _refuse(self, name: str, error: RealtimeError) -> None:
        """Answers a request that concerns no open subscription; a name that is too long is not repeated."""
        name = name if len(name.encode()) <= _NAME_BYTES else ""
        self._subscriber(name, Terms(Filter())).close(pb.Closed(error=to_error(error)))

    def _rest(self) -> None:
        """Nothing is left to be sent."""
        if self._is_ending or (self._is_half_closed and not self._subscribers):
            self._finish()

    def _forget(self, subscriber: Subscriber) -> None:
        subscriber.release()
        if self._access is not None:
            self._access.forget(subscriber)
        self._sender.turns.forget(subscriber)
        if self._sender.row is not None:
            self._sender.row.forget(subscriber)
        if self._overfull is subscriber:
            self._overfull = None
        if self._subscribers.get(subscriber.name) is subscriber:
            del self._subscribers[subscriber.name]


def _everybody(_: Subscriber) -> bool:
    """Where there is no policy."""
    return True
