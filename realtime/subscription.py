"""One subscription's life: opened, its snapshot, at the live edge, behind and back, closed with a reason.

Who asked for a snapshot is not closed when the position cannot be served: it is told to drop what it
folded, and another snapshot follows on the same subscription.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from protos.events.v1 import stream_pb2 as pb
from realtime.at_time import point_before
from realtime.broadcast.audience import Audience
from realtime.catchup import CatchUp
from realtime.cursor import Cursor
from realtime.errors import (
    CursorReset,
    LimitExceeded,
    RealtimeError,
    RequestError,
    SourceUnavailable,
    Unavailable,
)
from realtime.hub import Hub
from realtime.jetstream import StreamReader, StreamState
from realtime.point import Point
from realtime.snapshot import Snapshot
from realtime.source import Source
from realtime.states import States
from realtime.status import to_error
from realtime.subscriber import Subscriber

log = structlog.get_logger("subscription")

_RESET_REASONS = {
    "EXPIRED": pb.RESET_REASON_EXPIRED,
    "EPOCH_CHANGED": pb.RESET_REASON_EPOCH_CHANGED,
    "HISTORY_REWRITTEN": pb.RESET_REASON_HISTORY_REWRITTEN,
    "FORBIDDEN": pb.RESET_REASON_FORBIDDEN,
}
_SOURCE_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Feed:
    """What a process's subscriptions read from."""

    hub: Hub
    source: Source
    reader: StreamReader
    catch_up: CatchUp
    states: States | None = None
    """Where snapshots are read; None: there are none."""
    audience: Audience | None = None
    """Who listens to broadcasts; None: there are none."""

    async def start_point(self, start: pb.Start) -> Point:
        """Where a subscription begins.

        Raises:
            CursorInvalid: the cursor is malformed or was tampered with.
            CursorReset: the cursor's position cannot be served.
            Unavailable: the stream cannot be read now.
        """
        cursor = Cursor.decode(start.after.cursor) if start.WhichOneof("position") == "after" else None
        try:
            async with asyncio.timeout(_SOURCE_WAIT_S):
                state = await self.source.proven()
            epoch = self.hub.epoch
            point = await self._point(start, cursor, state)
            if epoch == self.hub.epoch:
                return point
        except (TimeoutError, SourceUnavailable) as exc:
            raise Unavailable("the stream cannot be read now", "try again") from exc
        raise Unavailable("a new epoch began just now", "try again")

    async def _point(self, start: pb.Start, cursor: Cursor | None, state: StreamState) -> Point:
        position = start.WhichOneof("position")
        if cursor is not None:
            return await self._after(cursor, state)
        if position == "at_time":
            return await point_before(self.reader, start.at_time.time)
        return await self.catch_up.first_point() if position == "earliest" else self.hub.position

    async def earliest(self) -> bytes:
        """The cursor before the oldest message; empty when that cannot be known now."""
        try:
            return (await self.catch_up.first_point()).cursor(self.hub.epoch).encode()
        except SourceUnavailable:
            return b""

    async def _after(self, cursor: Cursor, state: StreamState) -> Point:
        if cursor.epoch != state.epoch:
            raise CursorReset(
                "EPOCH_CHANGED", f"the cursor is of epoch {cursor.epoch}, the stream of epoch {state.epoch}"
            )
        if state.epoch != self.hub.epoch:
            raise SourceUnavailable("a new epoch began just now")
        if cursor.sequence > state.last_sequence:
            raise CursorReset(
                "HISTORY_REWRITTEN",
                f"the cursor is at {cursor.sequence}, the stream ends at {state.last_sequence}",
            )
        if cursor.sequence + 1 < state.first_sequence:
            raise CursorReset(
                "EXPIRED", f"the cursor is at {cursor.sequence}, the stream begins at {state.first_sequence}"
            )
        if cursor.sequence and cursor.timestamp_ns:
            found = await self._timestamp_ns(cursor.sequence)
            if found is not None and found != cursor.timestamp_ns:
                raise CursorReset(
                    "HISTORY_REWRITTEN",
                    f"the stream holds another message at {cursor.sequence} than the cursor saw",
                )
        return Point(cursor.sequence, cursor.timestamp_ns, 0, 0, 0)

    async def _timestamp_ns(self, sequence: int) -> int | None:
        """When a message was stored; None when none stands there. From the ring, if it was read from the stream:
        after a restart thousands come back with cursors of the same few minutes."""
        point = self.hub.history.point_at(sequence)
        if point is not None and point.sequence == sequence and point.timestamp_ns:
            return point.timestamp_ns
        return await self.reader.timestamp_ns(sequence)


async def keep_up(subscriber: Subscriber, feed: Feed) -> None:
    """Brings a subscription to the live edge, and back whenever it fell behind, until it is closed.

    The subscriber must be open (``ready`` said). Ends by closing it, whatever happens.
    """
    lagging = asyncio.Event()
    subscriber.on_lag = lambda _: lagging.set()
    while await reach(subscriber, feed):
        await lagging.wait()
        lagging.clear()


async def reach(subscriber: Subscriber, feed: Feed) -> bool:
    """Brings a subscription to the live edge: True once it is there. It needs nobody then; call this again when
    it has left the edge. False when it is over: it is closed then, whatever happened.
    """
    hub = feed.hub
    is_there = False
    try:
        while not (is_there or subscriber.is_closed):
            if subscriber.voided is None:
                subscriber.voided = hub.reset_signal()
            reset = _reason(subscriber.voided)
            if reset is None and not (is_there := _is_there(subscriber, feed)):
                reset = await _until_reset(subscriber, feed, subscriber.voided)
            if reset is not None:
                subscriber.voided = None
                if subscriber.pages is None or subscriber.is_closed:
                    await end(subscriber, reset, feed)
                else:
                    await _restart(subscriber, reset, feed)
    except RealtimeError as exc:
        await end(subscriber, exc, feed)
    except Exception as exc:
        # A bug: it ends this subscription with INTERNAL, and no other one.
        log.exception("a subscription failed", subscription=subscriber.name)
        hub.detach(subscriber)
        subscriber.close(pb.Closed(error=to_error(exc)))
    finally:
        if not is_there:
            hub.detach(subscriber)
            subscriber.stop()
    return is_there


def _reason(voided: asyncio.Future[CursorReset]) -> CursorReset | None:
    return voided.result() if voided.done() else None


def _is_there(subscriber: Subscriber, feed: Feed) -> bool:
    """Whether it is at the live edge, or can be put there without waiting for anything.

    Raises:
        LimitExceeded: it fell behind, and is to be closed then. Whatever went wrong in its filter.
    """
    if subscriber.is_live:
        return True  # it only changed its lane
    if subscriber.failure is not None:
        raise subscriber.failure
    if subscriber.terms.disconnects and subscriber.falls:
        raise LimitExceeded(
            "the client reads more slowly than events match, and asked to be disconnected then",
            "read faster, narrow the filter, or open with CATCH_UP",
        )
    if (subscriber.pages is not None and subscriber.pages.is_under_way) or not feed.catch_up.join(subscriber):
        return False
    subscriber.say(pb.CaughtUp(source=feed.hub.source_position()))
    return True


async def _until_reset(
    subscriber: Subscriber, feed: Feed, reset: asyncio.Future[CursorReset]
) -> CursorReset | None:
    """The way to the live edge. Why the position cannot be served any more; None once it is there, or closed."""
    work = asyncio.ensure_future(_follow(subscriber, feed, reset))
    pages = subscriber.pages
    narrowed = asyncio.ensure_future(pages.narrowed.wait()) if pages is not None else None
    waiting = (reset, work) if narrowed is None else (reset, work, narrowed)
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if reset.done():
            return reset.result()
        if narrowed is not None and narrowed.done() and not subscriber.is_closed:
            return CursorReset("FORBIDDEN", "what the caller may see became less while the snapshot was made")
        work.result()
    except CursorReset as exc:
        return exc
    finally:
        tasks = (work,) if narrowed is None else (work, narrowed)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return None


async def _restart(subscriber: Subscriber, reset: CursorReset, feed: Feed) -> None:
    """Says that what was folded is to be dropped, and opens the subscription anew at the live edge."""
    feed.hub.detach(subscriber)
    earliest = await feed.earliest()
    subscriber.restart(
        pb.Reset(
            reason=_RESET_REASONS.get(reset.reason, pb.RESET_REASON_UNSPECIFIED),
            earliest_cursor=earliest,
            action=pb.RESET_ACTION_AWAIT_SNAPSHOT,
        )
    )
    await subscriber.told()
    point = await feed.start_point(pb.Start(snapshot=pb.SnapshotStart()))
    if not subscriber.is_closed:
        subscriber.begin(point, feed.hub.epoch)
        subscriber.say(pb.Ready(epoch=feed.hub.epoch, source=feed.hub.source_position()))


async def _follow(subscriber: Subscriber, feed: Feed, reset: asyncio.Future[CursorReset]) -> None:
    if subscriber.pages is not None and subscriber.pages.is_under_way:
        if feed.states is None:
            raise Unavailable("this server reads no states", "begin at earliest or live")
        await Snapshot(subscriber, feed.hub, feed.catch_up, feed.states).send()
        if subscriber.is_closed:
            return
    await feed.catch_up.run(subscriber, reset)
    if subscriber.is_live and not reset.done():
        subscriber.say(pb.CaughtUp(source=feed.hub.source_position()))


async def end(subscriber: Subscriber, error: RealtimeError, feed: Feed) -> None:
    """Says why a subscription is over, and closes it."""
    feed.hub.detach(subscriber)
    if subscriber.is_closed:
        return
    if isinstance(error, CursorReset):
        reason = _RESET_REASONS.get(error.reason, pb.RESET_REASON_UNSPECIFIED)
        earliest = await feed.earliest()
        if subscriber.is_closed:
            return
        subscriber.reset(
            pb.Reset(reason=reason, earliest_cursor=earliest, action=pb.RESET_ACTION_FETCH_STATE)
        )
    elif not isinstance(error, RequestError):
        log.error("a subscription failed", subscription=subscriber.name, cause=error.message)
    subscriber.close(pb.Closed(error=to_error(error)))
