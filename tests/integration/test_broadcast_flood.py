"""A flood of broadcasts: bounded where it enters, counted, and nothing that stored events feel."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client as NatsClient

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.broadcast import receiver as receiving
from realtime.broadcast.audience import Audience
from realtime.broadcast.receiver import Receiver
from realtime.broadcast.row import Row
from realtime.errors import Unavailable
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.memberships import Memberships
from realtime.point import ORIGIN
from realtime.subscriber import Subscriber
from realtime.terms import Terms
from tests.fixtures.broadcasts import broadcast, typing
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

ONE = new_id()
PLACE = fmt.live_subject(ONE, "note", "n")
HEADERS = {fmt.VERB: "typing"}


async def flood(connection: NatsClient, first: int, count: int, size: int = 0) -> None:
    for number in range(first, first + count):
        payload = Event(id=str(number), source="x" * size).SerializeToString()
        await connection.publish(PLACE, payload, headers=HEADERS)
    await connection.flush(10)


async def passed(writer: NatsClient, connection: NatsClient) -> None:
    """Waits until all that was published before has come over a connection: a message behind it has. (nats-py's
    flush says less: its ping may overtake what was published.)"""
    subject, came = f"passed.{new_id()}", asyncio.Event()

    async def heard(_: object) -> None:
        came.set()

    await connection.subscribe(subject, cb=heard)

    async def is_heard() -> bool:
        await writer.publish(subject)
        return came.is_set()

    await eventually(is_heard)


@asynccontextmanager
async def received(url: str, audience: Audience) -> AsyncIterator[Receiver]:
    connection = await nats.connect(url)
    receiver = Receiver(connection, audience, 64 * 1024)
    running = asyncio.ensure_future(receiver.run())
    try:
        await eventually(lambda: connection._subs)
        yield receiver
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()


async def test_what_the_server_cannot_follow_is_dropped_where_it_enters(
    nats_server: NatsServer,
) -> None:
    memberships = Memberships()
    audience = Audience(lambda: memberships)
    subscriber = Subscriber("s", Terms(Filter()), MailboxLimits())
    subscriber.begin(ORIGIN, "e")
    row = Row(audience, lambda: None, lambda _: True)
    writer = await nats.connect(nats_server.url)
    try:
        async with received(nats_server.url, audience) as receiver:
            await passed(writer, receiver._connection)  # and its subscription stands
            await flood(writer, 0, 100)
            await passed(writer, receiver._connection)
            assert not receiver._queue, "nobody listens, nothing is kept"
            row.open(subscriber)
            give = receiver._give
            receiver._give = lambda: None  # type: ignore[method-assign]  # it is busy with something else
            await flood(writer, 0, 3 * receiving._MAX_MESSAGES)
            await eventually(lambda: receiver.dropped == 2 * receiving._MAX_MESSAGES)
            assert len(receiver._queue) == receiving._MAX_MESSAGES
            receiver._give = give  # type: ignore[method-assign]
            delivered: list[int] = []
            missed = 0

            def all_is_told() -> bool:
                nonlocal missed
                while (data := row.next_frame()) is not None:
                    frame = pb.SubscribeResponse.FromString(data).broadcasts
                    missed += frame.dropped
                    delivered.extend(int(event.id) for event in frame.events)
                return missed + len(delivered) == receiving._MAX_MESSAGES

            await eventually(all_is_told)
            assert delivered == sorted(delivered)
            assert delivered[-1] == 3 * receiving._MAX_MESSAGES - 1, "the oldest are dropped"
            await flood(writer, 0, 200, 60_000)
            await passed(writer, receiver._connection)
            await eventually(lambda: not receiver._queue)
            assert receiver._queue_bytes == 0
    finally:
        await writer.close()


async def test_a_listener_in_a_flood_gets_every_stored_event(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    connection = await nats.connect(nats_server.url)
    over = asyncio.Event()

    async def until_over() -> int:
        sent = 0
        while not over.is_set():
            await flood(connection, sent, 500, 200)
            sent += 500
        return sent

    try:
        async with (
            serving(nats_server.url) as address,
            raw_stream(address) as stream,
            raw_stream(address) as other,
        ):
            await stream.open("a", broadcasts=True)
            await other.open("b")
            flooding = asyncio.ensure_future(until_over())
            stored = []
            for _ in range(20):
                stored += await writer.commit(*(Change() for _ in range(10)))
            for each, name in ((stream, "a"), (other, "b")):
                await each.until(lambda s=each, n=name: len(s[n].events) == 200)  # type: ignore[misc]
                assert each[name].sequences == sequences(stored)
                assert "fell_behind" not in each[name].said
            over.set()
            sent = await flooding
            assert stream["a"].broadcasts, "they are not starved"
            assert len(stream["a"].broadcasts) + stream["a"].dropped <= sent
            assert not other["b"].broadcasts
    finally:
        await connection.close()


async def until_refused(address: str) -> int:
    """Broadcasts large events until the server takes no more; how many it took."""
    for taken in range(1000):
        try:
            await broadcast(address, typing(ONE, f"n{taken}", 60_000))
        except Unavailable:
            return taken
    raise AssertionError("everything was taken")


async def test_a_broker_that_stands_still_takes_nothing_and_nothing_is_kept(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    """What was handed over before may come late; what was refused never comes."""
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a", broadcasts=True)
        assert nats_server.pid is not None
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            taken = await until_refused(address)
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)

        async def is_taken() -> bool:
            try:
                await broadcast(address, typing(ONE, "after"))
            except Unavailable:
                return False
            return True

        await eventually(is_taken, timeout=20)
        account = stream["a"]
        await stream.until(lambda: any(event.subject == "after" for event in account.broadcasts))
        assert f"n{taken}" not in {event.subject for event in account.broadcasts}
