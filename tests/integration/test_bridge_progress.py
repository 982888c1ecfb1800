"""Who waits for a place of the source's log asks for a mark, and gets it at once."""

from __future__ import annotations

import asyncio

import psycopg

from protos.events.v1 import stream_format as fmt
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import POSITION, Reader
from tests.integration.bridge_command import execute


def emit(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT pg_logical_emit_message(true, %s, '') - '0/0'::pg_lsn", (fmt.PROGRESS,)
        ).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_mark_that_is_asked_for_comes_long_before_the_next_one_is_due(
    migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    # Every mark that comes within the test was asked for.
    settings = settings_for(migrated_dsn, nats_url, slot_name, mark_interval_s=60, heartbeat_s=0)
    async with running(settings):
        for _ in range(3):
            execute(migrated_dsn, "INSERT INTO users (email) VALUES (gen_random_uuid()::text)")
            lsn = await asyncio.to_thread(emit, migrated_dsn)

            async def is_marked(lsn: int = lsn) -> bool:
                return await stream_reader.marked_lsn() > lsn

            await eventually(is_marked, timeout=30)
        mark = await stream_reader.get(last_by_subj=POSITION)
        events = await stream_reader.events()
        assert mark is not None
        assert len(events) == 3
        assert events[-1].sequence < mark.sequence


async def test_many_who_ask_at_once_share_few_marks(
    migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    settings = settings_for(migrated_dsn, nats_url, slot_name, mark_interval_s=60, heartbeat_s=0)
    async with running(settings):
        before = (await stream_reader.info())["state"]["last_seq"]
        lsn = 0
        with psycopg.connect(migrated_dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            for _ in range(200):
                connection.execute("SELECT pg_logical_emit_message(true, %s, '')", (fmt.PROGRESS,))
        lsn = await asyncio.to_thread(emit, migrated_dsn)

        async def is_marked() -> bool:
            return await stream_reader.marked_lsn() > lsn

        await eventually(is_marked, timeout=30)
        assert (await stream_reader.info())["state"]["last_seq"] - before < 100
