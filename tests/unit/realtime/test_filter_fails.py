"""A filter that fails while an event is matched ends the subscriptions that have it, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import NoReturn, cast

import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime.catchup import CatchUp
from realtime.filters import Filter
from realtime.hub import Hub
from realtime.jetstream import StreamReader
from realtime.limits import MailboxLimits
from realtime.point import Point
from realtime.source import Source
from realtime.subscriber import Subscriber
from realtime.subscription import Feed, keep_up
from realtime.terms import Terms
from tests.property.hub_model import A, Broker, LiveSource

EPOCH = "0190a0000000000000aa"


class Breaks(str):
    """A verb that cannot be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> NoReturn:
        raise ValueError("it breaks")


def frames(subscriber: Subscriber) -> list[pb.SubscribeResponse]:
    found = []
    while subscriber.has_frames:
        found.append(pb.SubscribeResponse.FromString(subscriber.take_frame()))
    return found


@pytest.mark.parametrize("is_live", [True, False])
async def test_it_ends_its_own_subscriptions_alone(is_live: bool) -> None:
    broker, hub = Broker(), Hub()
    broker.begin(EPOCH)
    hub.begin(EPOCH, Point(0, 0, 0, 0, 0))
    reader = cast("StreamReader", broker)
    feed = Feed(hub, cast("Source", LiveSource(broker)), reader, CatchUp(hub, reader))
    good = Filter(verbs=frozenset((fmt.DELETED, "other")))
    bad = Filter(verbs=frozenset((Breaks(fmt.DELETED),)))
    subscribers = [
        Subscriber(str(at), Terms(each), MailboxLimits()) for at, each in enumerate((good, bad, bad))
    ]
    for verb in ("made", fmt.DELETED):
        broker.append((A, "note", "x", verb, ""), None, 1)
    if not is_live:
        hub.take(broker.all)
    async with asyncio.TaskGroup() as tasks:
        following = []
        for subscriber in subscribers:
            subscriber.begin(Point(0, 0, 0, 0, 0), EPOCH)
            following.append(tasks.create_task(keep_up(subscriber, feed)))
        if is_live:
            async with asyncio.timeout(5):
                while hub.live_subscriptions < len(subscribers):  # noqa: ASYNC110  # turns of the loop
                    await asyncio.sleep(0)
            assert hub.lanes == 2
            hub.take(broker.all)
        await asyncio.wait(following[1:], timeout=5)
        assert [task.done() for task in following] == [False, True, True]
        for subscriber in subscribers[1:]:
            *_, last = frames(subscriber)
            assert last.closed.error.code == codes.ERROR_CODE_INTERNAL
            assert last.coverage.through <= 1, "it does not account for what it could not match"
        broker.append((A, "note", "x", fmt.DELETED, ""), None, 1)
        hub.take(broker.all[2:])
        assert hub.lanes == 1
        got = [event.sequence for frame in frames(subscribers[0]) for event in frame.events.events]
        assert got == [2, 3]
        following[0].cancel()
