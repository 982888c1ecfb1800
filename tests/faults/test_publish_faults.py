"""Publishing while servers die: what a client sends again is stored once, in order, and batches never in part."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from protos.events.v1 import publish_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.errors import ProducerFenced, Unavailable
from realtime.publish import broker
from realtime.publish.commands import Message
from tests.fixtures.eventually import eventually
from tests.fixtures.gate import Gate
from tests.fixtures.publish_kit import batched, new_event, produced, publish_client, refusal
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.resender import Resender
from tests.fixtures.stream_writer import STREAM, StreamWriter
from zephyr.stack.nats import NatsServer
from zephyr.verify.proxy import Mode

EVENTS = 10_000
ROUNDS = 12 if os.environ.get("ZEPHYR_FAULTS") == "long" else 2


async def stored(writer: StreamWriter) -> list[tuple[int, str]]:
    """Sequence and id of each domain event, as the stream has them."""
    jetstream = writer.connection.jetstream(timeout=10)
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    subscription = await jetstream.subscribe("zephyr.>", stream=STREAM, ordered_consumer=True)
    found: list[tuple[int, str]] = []
    at = 0
    while at < last:
        message = await subscription.next_msg(timeout=10)
        at = message.metadata.sequence.stream
        if message.subject.endswith(".event"):
            found.append((at, Event.FromString(message.data).id))
    await subscription.unsubscribe()
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_killed_at_random_each_is_stored_once_and_in_order(
    nats_server: NatsServer, writer: StreamWriter, tmp_path: Path, seed: int
) -> None:
    """Server and broker are killed while thousands are in flight."""
    chance = random.Random(seed)
    server = ServerProcess(tmp_path, nats_server.url)
    await server.start()
    resender = Resender(server.address, "p", EVENTS, chance)
    moved = asyncio.Event()
    resender.told = lambda _: moved.set()
    running = asyncio.ensure_future(resender.run())
    kills = 0
    try:
        for at in sorted(chance.sample(range(EVENTS * 9 // 10), 4)):
            while len(resender.results) < at and not running.done():
                moved.clear()
                await moved.wait()
            await asyncio.sleep(chance.uniform(0, 0.02))  # where in a batch is chance
            if running.done():
                break
            kills += 1
            if chance.random() < 0.5:
                await server.kill()
                await server.start()
            else:
                await nats_server.kill()
                await nats_server.start()
        await asyncio.wait_for(running, 150)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.kill()
    found = await stored(writer)
    assert [event_id for _, event_id in found] == [f"p.{number}" for number in range(1, EVENTS + 1)]
    told = {resender.results[number].sequence: f"p.{number}" for number in range(1, EVENTS + 1)}
    told.pop(0, None)
    assert told.items() <= dict(found).items()
    assert len(told) == EVENTS - resender.without_place
    assert kills > 1


@pytest.fixture
async def gate(nats_server: NatsServer) -> AsyncIterator[Gate]:
    proxy = Gate(lambda: nats_server.address)
    async with proxy:
        yield proxy


@pytest.mark.parametrize("as_producer", [False, True])
async def test_a_batch_that_fails_half_way_leaves_nothing(
    nats_server: NatsServer, writer: StreamWriter, gate: Gate, as_producer: bool
) -> None:
    more = {"producer": pb.ProducerPlace(producer_id="p", sequence=1)} if as_producer else {}
    async with serving(gate.url) as address, publish_client(address) as client:
        gate.stop_before(lambda subject, command: b"Nats-Batch-Sequence: 50\r\n" in command)
        call = asyncio.ensure_future(client.batch([batched(f"n{at}") for at in range(100)], **more))
        await eventually(lambda: gate.is_held)
        await gate.forget()
        if as_producer:
            # It is not there, its mark says so, and it is sent again.
            assert not any(item.repeated for item in await call)
        else:
            error = await refusal(call)
            assert isinstance(error, Unavailable)
    expected = [f"n{at}" for at in range(100)] if as_producer else []
    assert [event_id for _, event_id in await stored(writer)] == [
        f"p.{at + 1}" for at in range(len(expected))
    ]


async def test_an_answer_that_was_lost_is_looked_up(
    nats_server: NatsServer, writer: StreamWriter, gate: Gate
) -> None:
    """The batch is stored, and nobody is told: the producer's last mark tells."""
    async with serving(gate.url) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open("p")
        await stream.put([produced(1)])
        await stream.settle(1)
        gate.set(Mode.DROP_ANSWERS)
        await stream.put(produced(number) for number in range(2, 202))

        async def is_stored() -> bool:
            return len(await stored(writer)) == 201

        await eventually(is_stored)
        gate.set(Mode.CUT)
        gate.set(Mode.PASS)
        await stream.put(produced(number) for number in range(202, 302))
        results = await stream.settle(301)
        assert stream.closed is None
        assert stream.sequences == list(range(1, 302))
        assert [result.stored.sequence for result in results] == [at for at, _ in await stored(writer)]
        assert sum(result.stored.repeated for result in results) == 200


async def test_of_two_copies_of_a_batch_one_is_stored(
    nats_server: NatsServer, writer: StreamWriter, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is held up on its way for so long that it is sent again; then both arrive."""
    monkeypatch.setattr(broker, "ANSWER_S", 0.3)
    copies = 0
    store = broker.Broker.store

    async def counted(self: broker.Broker, messages: Sequence[Message]) -> broker.Ack:
        nonlocal copies
        copies += 1
        return await store(self, messages)

    async with serving(gate.url) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open("p")
        monkeypatch.setattr(broker.Broker, "store", counted)
        gate.stop_before(lambda subject, _: subject == "zephyr._mark.0.producer.p")
        await stream.put(produced(number) for number in range(1, 101))
        await eventually(lambda: copies > 2, timeout=30)
        gate.stop_before(None)
        await stream.put(produced(number) for number in range(101, 201))
        results = await stream.settle(200)
        assert stream.closed is None
        assert [result.stored.sequence for result in results] == [at for at, _ in await stored(writer)]
    assert [event_id for _, event_id in await stored(writer)] == [f"p.{number}" for number in range(1, 201)]


async def test_without_a_producer_a_lost_answer_is_said(
    nats_server: NatsServer, writer: StreamWriter, gate: Gate
) -> None:
    async with serving(gate.url) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open()
        gate.set(Mode.DROP_ANSWERS)
        await stream.put([produced(1), produced(2)])

        async def is_stored() -> bool:
            return len(await stored(writer)) == 2

        await eventually(is_stored)
        gate.set(Mode.CUT)
        gate.set(Mode.PASS)
        await stream.until(lambda: stream.closed)
        assert isinstance(stream.closed, Unavailable)
        assert not stream.results


async def test_two_servers_serve_one_producer(nats_server: NatsServer, writer: StreamWriter) -> None:
    """Each stores what the other did not, whichever is asked."""
    async with (
        serving(nats_server.url) as one,
        serving(nats_server.url) as two,
        publish_client(one) as first,
        publish_client(two) as second,
    ):
        for number in range(1, 41):
            place = pb.ProducerPlace(producer_id="p", sequence=number)
            one_of_them, other = (first, second) if number % 2 else (second, first)
            was = await one_of_them.publish(new_event("n"), producer=place)
            again = await other.publish(new_event("n"), producer=place)
            assert (was.repeated, again.repeated) == (False, True)
            assert (was.sequence, was.cursor) == (again.sequence, again.cursor)
        session = await first.stream().open("p")
        assert session.session == 2
        error = await refusal(
            second.publish(new_event(), producer=pb.ProducerPlace(producer_id="p", sequence=41, session=1))
        )
        assert error.reason == "PRODUCER_FENCED"
        assert (
            await second.publish(new_event(), producer=pb.ProducerPlace(producer_id="p", sequence=41))
        ).version
    assert len(await stored(writer)) == 41


async def test_a_server_that_was_held_up_stores_nothing_of_a_former_session(
    nats_server: NatsServer, writer: StreamWriter, gate: Gate
) -> None:
    """Its batch is on its way while another server begins the next session, and arrives after that."""
    async with (
        serving(gate.url) as held,
        serving(nats_server.url) as other,
        publish_client(held) as first,
        publish_client(other) as second,
    ):
        former, present = first.stream(), second.stream()
        await former.open("p")
        gate.stop_before(lambda subject, _: subject == "zephyr._mark.0.producer.p")
        await former.put(produced(number) for number in range(1, 101))
        await eventually(lambda: gate.is_held)
        opened = await present.open("p")
        assert (opened.session, opened.reached) == (2, 0)
        await present.put(produced(number) for number in range(1, 51))
        await present.settle(50)
        gate.stop_before(None)
        await former.until(lambda: former.closed)
        assert isinstance(former.closed, ProducerFenced)
        assert not former.results
        await present.put([produced(51)])
        await present.settle(51)
    assert [event_id for _, event_id in await stored(writer)] == [f"p.{number}" for number in range(1, 52)]


async def test_marks_that_retention_took(nats_server: NatsServer, writer: StreamWriter) -> None:
    """A session goes on; who comes without one begins anew."""
    async with serving(nats_server.url) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open("p")
        await stream.put([produced(5)])
        await stream.settle(1)
        await writer.api(f"STREAM.PURGE.{STREAM}", {"filter": "zephyr._mark.0.producer.p"})
        await stream.put([produced(5), produced(6)])
        results = await stream.settle(3)
        assert [result.stored.repeated for result in results] == [False, True, False]
    assert [event_id for _, event_id in await stored(writer)] == ["p.5", "p.6"]
