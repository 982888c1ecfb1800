"""Runs the projector over an internal subscription, and begins anew when it must.

The projector listens like any client: at the live edge while it keeps up, from the stream
when Redis was slow. Where nothing concerns it, the watermark moves on all the same.
"""

from __future__ import annotations

import asyncio

from protos.events.v1 import stream_pb2 as pb
from realtime.errors import CursorReset, RealtimeError
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.projector import Projector
from realtime.subscriber import Subscriber
from realtime.subscription import Feed, keep_up
from realtime.terms import Terms

_BATCH = 512
_IDLE_S = 1.0
_PAUSE_S = 0.5


async def project(projector: Projector, feed: Feed) -> None:
    """Keeps the cache up with the stream until it is cancelled."""
    while True:
        after = await projector.start()
        start = pb.Start(earliest=pb.EarliestStart())
        if after is not None:
            start = pb.Start(after=pb.AfterStart(cursor=after.encode()))
        try:
            point = await feed.start_point(start)
        except CursorReset:
            await projector.reset()
            continue
        except RealtimeError:
            await asyncio.sleep(_PAUSE_S)
            continue
        arrived = asyncio.Event()

        def came(_: Subscriber, arrived: asyncio.Event = arrived) -> bool:
            arrived.set()
            return True

        projector.hurry = arrived.set
        terms = Terms(Filter(kinds=frozenset(projector.kinds)))
        subscriber = Subscriber("projector", terms, MailboxLimits(), came)
        subscriber.begin(point, feed.hub.epoch)
        following = asyncio.ensure_future(keep_up(subscriber, feed))
        try:
            await _apply(projector, subscriber, arrived)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _apply(projector: Projector, subscriber: Subscriber, arrived: asyncio.Event) -> None:
    """Returns when the subscription ended or the cache was lost."""
    while True:
        arrived.clear()
        if not subscriber.has_frames:
            if subscriber.is_closed:
                return
            try:
                async with asyncio.timeout(_IDLE_S):
                    await arrived.wait()
            except TimeoutError:
                if not subscriber.is_behind:
                    continue
        entries, through = subscriber.take_entries(_BATCH)
        if not await projector.apply(subscriber.epoch, entries, through.cursor(subscriber.epoch)):
            return
