"""Publishes events in their order, each stored exactly once, across reconnections.

What was given waits until the server's session takes it, many in one request when many wait, and is
kept until its result came: after a lost connection the next session sends again, from the first
without a result, and the server knows what it has. What waits is bounded by the server's window.
"""

from __future__ import annotations

import asyncio
import uuid
from types import TracebackType
from typing import Self

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from realtime.client.backoff import Backoff
from realtime.client.channel import Channel
from realtime.client.connection import GoingAway
from realtime.client.draft import Draft
from realtime.client.publish_session import PublishSession
from realtime.client.published import Publication
from realtime.client.token import Caller
from realtime.client.unacknowledged import Unacknowledged, produced
from realtime.errors import (
    ArgumentInvalid,
    LimitExceeded,
    PublishFailed,
    RealtimeError,
    RequestError,
    Unavailable,
)

_YIELD_EVERY = 256
"""So many events are taken at a stretch before the loop may send: a request is filled while the one before is
on its way."""
_KEPT_FAILURES = 1000


class Publisher:
    """Use it as an async context manager: at the end of the block all that was given is stored, or it raises.

    A block that raises ends the publisher at once: what it gave and was not sent is not stored.
    """

    def __init__(
        self,
        channel: Channel,
        caller: Caller,
        producer_id: str | None,
        patience_s: float | None,
        in_flight: int | None,
        open_ones: set[Publisher],
    ) -> None:
        self.producer_id = producer_id or uuid.uuid4().hex
        self.patience_s = patience_s
        self._channel = channel
        self._caller = caller
        self._open_ones = open_ones
        self._unacknowledged = Unacknowledged(in_flight)
        self._session = PublishSession(self.producer_id, self._unacknowledged, self._settled)
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._opened: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._ended: RealtimeError | None = None
        self._backoff = Backoff()
        self._away_since: float | None = None
        self._is_proved = False
        self._unyielded = 0
        self._last = 0
        self._reached = 0
        self._sessions = 0
        self._failures: list[Publication] = []
        self._more_failures = 0

    @property
    def reached(self) -> int:
        """The greatest sequence of the producer that is known to be stored; 0 when there is none."""
        return self._reached

    @property
    def reconnections(self) -> int:
        """How often another connection went on."""
        return max(0, self._sessions - 1)

    @property
    def waiting(self) -> int:
        """How many events have no result yet; bounded by the server's window."""
        return len(self._unacknowledged)

    async def __aenter__(self) -> Self:
        """
        Raises:
            RealtimeError: the server refuses the session, or was away for longer than the patience.
        """
        self._open_ones.add(self)
        self._opened = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run())
        try:
            await self._opened
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            await self.close()

    async def publish(self, event: Draft | pb.NewEvent, *, sequence: int | None = None) -> Publication:
        """Takes an event; waits while the window is full. What is given back can be awaited for the result.

        ``sequence`` is its place among the producer's events, where the source has places of its own; greater
        than the one before. Else it is the next one. May be cancelled: then the event is not taken.

        Raises:
            ArgumentInvalid: the sequence is not greater than the one before.
            RealtimeError: the publisher is over; its error says why.
        """
        expectation: bytes | None = None
        if isinstance(event, Draft):
            if event.expectation is not None:
                expectation = event.expectation.SerializeToString()
            event = event.event
        data = event.SerializeToString()
        self._unyielded += 1
        if self._unyielded >= _YIELD_EVERY:
            self._unyielded = 0
            await asyncio.sleep(0)
        if self._turn.locked() or not self._unacknowledged.has_room(len(data)):
            async with self._turn:
                while self._ended is None and not self._unacknowledged.has_room(len(data)):
                    self._unyielded = 0
                    self._news.clear()
                    await self._news.wait()
                return self._add(data, expectation, sequence)
        return self._add(data, expectation, sequence)

    async def flush(self) -> None:
        """Waits until all that was given is stored.

        Raises:
            PublishFailed: some of it is not, and nobody asked for its result. Told once.
            RealtimeError: the publisher is over; the results say what is not stored and what may be.
        """
        while self._ended is None and len(self._unacknowledged):
            self._news.clear()
            await self._news.wait()
        if self._ended is not None:
            raise self._ended
        failures = [each for each in self._failures if not each.is_asked]
        count = len(failures) + self._more_failures
        self._failures.clear()
        self._more_failures = 0
        if failures and failures[0].error is not None:
            raise PublishFailed(count, failures[0].sequence, failures[0].error) from failures[0].error

    async def close(self) -> None:
        """Ends the publisher as it is. Of what has no result yet it is not known whether it is stored."""
        self._open_ones.discard(self)
        self._end(RealtimeError("the publisher was closed", "open another"))
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def end(self, error: RealtimeError) -> None:
        """Ends it; whoever waits for it is told the error."""
        self._end(error)
        await self.close()

    def _add(self, data: bytes, expectation: bytes | None, sequence: int | None) -> Publication:
        if self._ended is not None:
            raise self._ended
        if self._running is None:
            raise RealtimeError("the publisher is not open", "use it as an async context manager")
        if sequence is None:
            sequence = max(self._last, self._reached) + 1
        elif sequence <= self._last or sequence >= 1 << 64:
            raise ArgumentInvalid(
                "sequence", f"{sequence} comes after {self._last}", "they only grow, from 1"
            )
        publication = Publication(sequence, produced(sequence, data, expectation))
        self._last = sequence
        self._unacknowledged.add(publication)
        self._session.wake()
        return publication

    async def _run(self) -> None:
        """One session after the other, until one ends for good."""
        try:
            while True:
                channel = self._channel.current
                try:
                    await self._session.run(channel, await self._caller.metadata(), self._has_opened)
                except RealtimeError as exc:
                    await self._pause(exc)
        except RealtimeError as exc:
            self._end(exc)

    async def _pause(self, cause: RealtimeError) -> None:
        """Waits before the next session.

        Raises:
            RealtimeError: there is no use in another session.
        """
        was_proved, self._is_proved = self._is_proved, False
        outlived = (
            isinstance(cause, RequestError)
            and cause.code == codes.ERROR_CODE_UNAUTHENTICATED
            and self._caller.can_renew
            and was_proved
        )
        # Who comes back to another server may find it full for a while.
        is_full = isinstance(cause, LimitExceeded) and self._sessions > 0 and not was_proved
        if not (isinstance(cause, Unavailable) or outlived or is_full):
            raise cause
        self._unacknowledged.rewind()
        pause_s = cause.retry_after_s if isinstance(cause, GoingAway) else self._backoff.next_s()
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
        if self.patience_s is not None and now + pause_s > self._away_since + self.patience_s:
            raise cause
        await asyncio.sleep(pause_s)

    def _has_opened(self, opened: pb.ProducerOpened) -> None:
        self._sessions += 1
        self._away_since = None
        self._is_proved = True
        self._reached = max(self._reached, opened.reached)
        self._unacknowledged.grant(opened.window)
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def _settled(self, publications: list[Publication]) -> None:
        if publications:
            self._backoff.reset()
        for publication in publications:
            if not publication.failed:
                self._reached = max(self._reached, publication.sequence)
            elif not publication.is_asked:
                if len(self._failures) < _KEPT_FAILURES:
                    self._failures.append(publication)
                else:
                    self._more_failures += 1
        self._news.set()

    def _end(self, error: RealtimeError) -> None:
        if self._ended is None:
            self._ended = error
            self._unacknowledged.abandon(error)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        self._news.set()
