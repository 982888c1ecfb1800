"""A subscription far behind is served by a consumer of its own, which leaves nothing and delays nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from protos.events.v1 import stream_pb2 as pb
from realtime import catchup, pace
from realtime.entry import Entry
from realtime.handover import hand_over_entries
from realtime.jetstream import StreamReader
from realtime.pace import Pace
from realtime.subscriber import Subscriber
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import RawStream, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import STREAM, Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

SMALL = {"ring_entries": 64}
COUNT = 6000


@pytest.fixture(autouse=True)
def _long_ways_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "_LONG_WAY", 500)


async def only_the_live_consumer_is_left(writer: StreamWriter) -> None:
    async def is_alone() -> bool:
        return len(await writer.consumers()) == 1

    await eventually(is_alone, what="the catch-up's consumer is gone")


async def test_a_long_way_needs_no_page_and_leaves_no_consumer(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(*_: object) -> None:
        raise AssertionError("a page was asked for")

    workspace = new_id()
    await writer.commit(*(Change(workspace=workspace, size=at % 700) for at in range(COUNT)))
    monkeypatch.setattr(StreamReader, "page", page)
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        assert stream["a"].sequences == sequences(writer.stored)
        assert stream["a"].counts == [COUNT, 0, 0]
        await only_the_live_consumer_is_left(writer)
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].sequences[-1] == COUNT + 1)


async def test_holes_and_a_filter(nats_server: NatsServer, writer: StreamWriter) -> None:
    workspace = new_id()
    await writer.commit(*(Change(workspace=workspace if at % 3 == 0 else "_") for at in range(COUNT)))
    removed = {1, 2, 300, 2000, 2001, COUNT - 1}
    for sequence in removed:
        await writer.remove(sequence)
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("some", pb.Filter(workspace_ids=[workspace]), earliest())
        await stream.caught_up("some")
        matching = [at for at in range(1, COUNT + 1) if at % 3 == 1 and at not in removed]
        assert stream["some"].sequences == matching
        assert sum(stream["some"].counts) == COUNT - len(removed)


async def open_with_credit(stream: RawStream, name: str, messages: int) -> None:
    request = pb.OpenSubscription(subscription_id=name, start=earliest(), credit=pb.Credit(messages=messages))
    await stream.send(pb.SubscribeRequest(open=request))
    await stream.until(lambda: "ready" in stream[name].said)


async def test_those_that_read_slowly_keep_no_place(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit(*(Change() for _ in range(COUNT)))
    slow = [f"slow {at}" for at in range(6)]
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        for name in slow:
            await open_with_credit(stream, name, 3)
        await stream.open("quick", start=earliest())
        await stream.caught_up("quick")
        assert stream["quick"].sequences == sequences(writer.stored)
        assert [len(stream[name].events) for name in slow] == [3] * len(slow)
        for name in slow:
            grant = pb.CreditGrant(subscription_id=name, credit=pb.Credit(messages=2 * COUNT))
            await stream.send(pb.SubscribeRequest(credit=grant))
        for name in slow:
            await stream.caught_up(name)
            assert stream[name].sequences == sequences(writer.stored)
        await only_the_live_consumer_is_left(writer)


async def test_closed_in_the_middle_of_the_way(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit(*(Change() for _ in range(COUNT)))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await open_with_credit(stream, "a", 3)
        await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id="a")))
        await stream.closed("a")
        await stream.open("b", start=earliest())
        await stream.caught_up("b")
        assert stream["b"].sequences == sequences(writer.stored)


async def test_the_consumer_is_deleted_and_the_broker_restarted_under_it(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit(*(Change() for _ in range(COUNT)))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        for name in ("deleted", "restarted"):
            await open_with_credit(stream, name, 3)
            if name == "deleted":
                for consumer in await writer.consumers():
                    await writer.api(f"CONSUMER.DELETE.{STREAM}.{consumer}")
            else:
                await nats_server.stop()
                await nats_server.start()
            grant = pb.CreditGrant(subscription_id=name, credit=pb.Credit(messages=2 * COUNT))
            await stream.send(pb.SubscribeRequest(credit=grant))
            await stream.caught_up(name)
            assert stream[name].sequences == sequences(writer.stored)


async def test_nothing_of_the_past_is_handed_over_while_a_live_frame_is_under_way(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_S", 60.0)  # on a busy machine a frame may take longer than that
    under_way, handed, live_sent = 0, [0], 0
    begin, end = Pace.begin_live, Pace.end_live

    def begin_live(self: Pace) -> None:
        nonlocal under_way
        under_way += 1
        begin(self)

    def end_live(self: Pace) -> None:
        nonlocal under_way, live_sent
        under_way -= 1
        live_sent += 1
        end(self)

    def hand(subscriber: Subscriber, entries: Sequence[Entry], *rest: Any) -> bool:
        assert not under_way
        handed.append(len(entries))
        return hand_over_entries(subscriber, entries, *rest)

    monkeypatch.setattr(Pace, "begin_live", begin_live)
    monkeypatch.setattr(Pace, "end_live", end_live)
    monkeypatch.setattr(catchup, "hand_over_entries", hand)
    await writer.commit(*(Change() for _ in range(COUNT)))
    async with (
        serving(nats_server.url, **SMALL) as address,
        raw_stream(address) as live,
        raw_stream(address) as past,
    ):
        for name in ("a", "b", "c"):
            await live.open(name)
            await live.caught_up(name)
        await open_with_credit(past, "past", 200)
        await past.until(lambda: len(past["past"].events) == 200)
        for _ in range(20):
            await writer.commit(Change())
            grant = pb.CreditGrant(subscription_id="past", credit=pb.Credit(messages=COUNT // 16))
            await past.send(pb.SubscribeRequest(credit=grant))
        await past.caught_up("past")
        assert past["past"].sequences == sequences(writer.stored)
        await live.until(lambda: all(len(live[name].events) == 20 for name in ("a", "b", "c")))
    assert live_sent >= 20
    assert max(handed) <= pace.SLICE
