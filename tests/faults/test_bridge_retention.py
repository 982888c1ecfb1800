"""Streams with tiny limits: what they evict, marks too, stops nothing.

With so few messages an event may be gone before anybody reads it, so the reader goes along
with the writer: it reads each event as soon as it is committed, and must find every one.
"""

from __future__ import annotations

import asyncio
import itertools

import psycopg
import pytest

from bridge.errors import EventTooLarge
from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, change_of
from tests.fixtures.bridge import RunningBridge, running, settings_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import OWNER, POSITION, Reader, Stored, open_reader
from tests.integration.bridge_command import execute
from zephyr.stack.nats import NatsServer

SEED = 11
LIMITS = [
    {"stream_max_msgs": 8},
    {"stream_max_msgs": 9},
    {"stream_max_msgs": 50},
    {"stream_max_bytes": 40_000, "max_event_bytes": 8_000},
    {"stream_max_age_s": 0.5},
]


class Follower:
    """Reads events as they come, each before it can be evicted."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.events: list[Stored] = []
        self._after = 0

    async def read(self, count: int) -> None:
        """Until so many events are read in all."""

        async def has_them() -> bool:
            for message in await self.reader.all(self._after):
                self._after = message.sequence
                if not message.is_mark:
                    self.events.append(message)
            return len(self.events) >= count

        await eventually(has_them, what=f"{count} events; there are {len(self.events)}")


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "-".join(map(str, limits.items())))
async def test_limits_stop_nothing(
    limits: dict[str, object], migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    settings = settings_for(migrated_dsn, nats_url, slot_name, **limits)
    writer = OneByOne(migrated_dsn)
    follower = Follower(stream_reader)
    for _ in range(4):
        async with running(settings) as bridge:
            for _ in range(25):
                await writer.commit()
                await follower.read(writer.committed)
            # Idle for a while: only marks are stored, and they evict as well.
            sequence = (await stream_reader.info())["state"]["last_seq"]

            async def has_idled(since: int = sequence) -> bool:
                state = (await stream_reader.info())["state"]
                return int(state["last_seq"]) > since + 3

            await eventually(has_idled)
            # No 10071: the owner mark never left the stream.
            assert len(bridge.terms) == 1
            assert not bridge.ended
            for mark in (OWNER, POSITION):
                assert await stream_reader.get(last_by_subj=mark) is not None
    assert (await stream_reader.info())["state"]["first_seq"] > 10
    assert [message.event.user.email for message in follower.events] == [
        f"user {number}" for number in range(writer.committed)
    ]
    places = [message.place for message in follower.events]
    assert all(one < other for one, other in itertools.pairwise(places))


class OneByOne:
    """Commits one row at a time."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.committed = 0

    async def commit(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(
                "INSERT INTO users (email, display_name) VALUES (%s, %s)",
                (f"user {self.committed}", "x" * (self.committed % 7 * 1000)),
            )
        self.committed += 1


@pytest.mark.parametrize("max_msgs", [8, 50])
async def test_a_burst_over_the_limit_with_nats_killed_in_it(
    max_msgs: int, migrated_dsn: str, nats_server: NatsServer, slot_name: str
) -> None:
    # Marks are due by number alone: those of an idle source would evict the last events before they are read.
    settings = settings_for(
        migrated_dsn, nats_server.url, slot_name, stream_max_msgs=max_msgs, mark_interval_s=30
    )
    writer = Writer(migrated_dsn, SEED)
    async with running(settings) as bridge, open_reader(nats_server.url) as reader:
        await writer.prepare()
        for number in range(60):
            await writer.commit()
            if number in (20, 40):
                terms = len(bridge.terms)
                await nats_server.kill()
                await nats_server.start()

                def goes_on(former: int = terms) -> bool:
                    return len(bridge.terms) > former

                await eventually(goes_on)

        await writer.close()
        # Events and the three commits that ``caught_up`` makes have marks between them: read the last ones.
        wanted = writer.committed[-1]

        async def has_the_last() -> bool:
            return any(change_of(message) == wanted for message in await reader.events())

        await eventually(has_the_last, timeout=30)
        found = [change_of(message) for message in await reader.events()]
        assert found == writer.committed[-len(found) :]
        assert not bridge.task.done()


async def test_terms_that_end_at_once_do_not_evict_the_marks(
    migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    settings = settings_for(
        migrated_dsn, nats_url, slot_name, stream_max_msgs=8, max_event_bytes=1024, on_poison="stop"
    )
    async with running(settings):
        await stream_reader.caught_up(migrated_dsn)
    with psycopg.connect(migrated_dsn) as connection:
        connection.execute("INSERT INTO users (email, display_name) VALUES ('a', repeat('x', 2000))")
    for _ in range(12):
        # As under a supervisor, which starts it again and again.
        bridge = RunningBridge(settings)
        await asyncio.wait((bridge.task,), timeout=20)
        with pytest.raises(EventTooLarge):
            bridge.task.result()
    async with running(settings.model_copy(update={"max_event_bytes": 10_000})):

        async def has_it() -> bool:
            return [message.event.user.email for message in await stream_reader.events()] == ["a"]

        await eventually(has_it)


async def test_a_copy_that_waits_keeps_its_marks(bridge_settings: BridgeSettings) -> None:
    """The rate allows the next rows only after the stream's ``max_age``."""
    execute(
        bridge_settings.postgres_dsn,
        "WITH made AS (INSERT INTO workspaces (slug, name) VALUES ('w', 'w') RETURNING id)"
        " INSERT INTO notes (workspace_id, title) SELECT id, g::text FROM made, generate_series(1, 12) g",
    )
    limits = {"stream_max_age_s": 2, "snapshot_max_rows_per_s": 3}
    async with running(bridge_settings.model_copy(update=limits)) as bridge:
        assert bridge.terms[0].term == 1
