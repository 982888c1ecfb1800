"""Server and broker are killed at random while a client publishes: each event is stored once, and in order.

The schedule is drawn from a seed: who is killed, and after how many results. What the client was told must be
what the stream says, to the byte of each cursor. ``ZEPHYR_FAULTS=long`` (`make faults`) draws many schedules.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field
from functools import partial

import pytest

from realtime.client import Client, Publication, draft, earliest
from realtime.cursor import Cursor
from realtime.publish.results import KEPT
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import ServerProcess
from tests.fixtures.stream_writer import STREAM, StreamWriter
from zephyr.stack.nats import NatsServer

SEED = int(os.environ.get("ZEPHYR_TEST_SEED", "7"))
LONG = os.environ.get("ZEPHYR_FAULTS") == "long"
ROUNDS = 40 if LONG else 2
EVENTS = 20_000 if LONG else 5_000
KILLS = 6 if LONG else 3
ENTITIES = 50
FIRST_IN_FLIGHT, MOST_IN_FLIGHT = 4096, 16_384
"""The server's windows."""


@dataclass
class Producer:
    """One publisher, and what it was told."""

    name: str
    events: int
    own_places: bool
    publications: list[Publication] = field(default_factory=list)
    _done: int = 0

    def sequence(self, number: int) -> int:
        """With places of its own a source has holes."""
        return number * 3 if self.own_places else number

    @property
    def done(self) -> int:
        """How many have a result."""
        while self._done < len(self.publications) and self.publications[self._done].done:
            self._done += 1
        return self._done

    async def run(self, client: Client) -> None:
        in_flight = None if self.own_places else KEPT
        async with client.publisher(self.name, in_flight=in_flight) as publisher:
            for number in range(1, self.events + 1):
                event = draft(kind="note", entity=f"{self.name}-{number % ENTITIES}", verb="shared")
                sequence = self.sequence(number) if self.own_places else None
                self.publications.append(await publisher.publish(event, sequence=sequence))


def has_results(producers: list[Producer], count: int) -> bool:
    return sum(producer.done for producer in producers) >= count


async def kill_at_random(
    chance: random.Random, producers: list[Producer], server: ServerProcess, broker: NatsServer
) -> list[str]:
    """Kills by a drawn schedule, and starts again; gives what was killed."""
    total = sum(producer.events for producer in producers)
    killed = []
    for at in sorted(chance.sample(range(total // 20, total * 9 // 10), KILLS)):
        await eventually(partial(has_results, producers, at), timeout=60)
        victim = chance.choice(("server", "broker", "both"))
        killed.append(f"{victim} at {at}")
        if victim != "broker":
            await server.kill()
        if victim != "server":
            await broker.kill()
            await broker.start()
        if victim != "broker":
            await server.start()
    return killed


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.timeout(300)
async def test_each_event_is_stored_once_and_in_order(
    round_: int, nats_server: NatsServer, writer: StreamWriter, server_process: ServerProcess
) -> None:
    chance = random.Random(f"{SEED}-{round_}")
    await server_process.start()
    producers = [Producer("orders", EVENTS, own_places=False), Producer("file", EVENTS, own_places=True)]
    async with Client(server_process.address) as client:
        async with asyncio.TaskGroup() as tasks:
            for producer in producers:
                tasks.create_task(producer.run(client))
            killing = tasks.create_task(kill_at_random(chance, producers, server_process, nats_server))
        story = f"seed {SEED}-{round_}: {killing.result()}"
        stored: dict[str, list[tuple[int, int, bytes]]] = {producer.name: [] for producer in producers}
        async with client.subscribe(start=earliest()) as subscription:
            left = sum(producer.events for producer in producers)
            async for event in subscription:
                name, _, told = event.event.id.rpartition(".")
                stored[name].append((int(told), event.sequence, event.cursor))
                left -= 1
                if not left:
                    break
    for producer in producers:
        expected = [producer.sequence(number) for number in range(1, producer.events + 1)]
        assert [sequence for sequence, _, _ in stored[producer.name]] == expected, story
        unplaced = 0
        for publication, (sequence, place, cursor) in zip(
            producer.publications, stored[producer.name], strict=True
        ):
            result = publication.result()
            assert publication.sequence == sequence, story
            if not result.cursor:
                unplaced += 1
                assert result.repeated, story
                continue
            assert (result.sequence, result.cursor) == (place, cursor), story
            assert Cursor.decode(cursor).sequence == place
        # The last thousand results of a producer are given again, those before are not.
        assert producer.own_places or not unplaced, story
    # Nothing else is in the stream: no copy that a subscription would not have shown.
    info = await writer.api(f"STREAM.INFO.{STREAM}", {"subjects_filter": "zephyr.>"})
    events = sum(count for subject, count in info["state"]["subjects"].items() if subject.endswith(".event"))
    assert events == sum(producer.events for producer in producers), story


async def test_a_broker_that_stands_still_slows_who_publishes(
    nats_server: NatsServer, writer: StreamWriter, server_process: ServerProcess
) -> None:
    await server_process.start()
    assert nats_server.pid is not None
    async with Client(server_process.address) as client, client.publisher("p") as publisher:
        await (await publisher.publish(draft(kind="note", entity="first", verb="shared")))
        given = 1

        async def publish() -> None:
            nonlocal given
            for number in range(MOST_IN_FLIGHT + 5_000):
                await publisher.publish(draft(kind="note", entity=f"e{number % ENTITIES}", verb="shared"))
                given += 1

        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            publishing = asyncio.create_task(publish())
            await eventually(lambda: publisher.waiting >= FIRST_IN_FLIGHT, timeout=30)
            # It waits: nothing is taken beyond the window, however long it lasts.
            assert given - 1 == publisher.waiting <= MOST_IN_FLIGHT
            assert not publishing.done()
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        await publishing
        await publisher.flush()
        assert publisher.reached == given
