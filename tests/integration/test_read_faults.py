"""ReadService while Postgres or Valkey is stopped, frozen, restarted or not set up.

What one of the two knows is read while the other is away; nothing hangs, and it all comes back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid

import pytest

from protos.events.v1 import read_pb2
from protos.models.v1.note_pb2 import Note
from realtime.cache import Cached, Put
from realtime.database import Database
from realtime.errors import StoreUnavailable, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.read_kit import LIMIT_S, ReadKit, at
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.valkey import ValkeyServer


async def test_a_hanging_cache_costs_one_wait_and_not_one_a_read(
    read_kit: ReadKit, own_valkey: ValkeyServer
) -> None:
    ids = [await read_kit.insert_note() for _ in range(20)]
    await read_kit.note(ids[0])
    assert own_valkey.pid is not None
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for note_id in ids:
            assert (await read_kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES
        # With a wait a read it would be 20 × 1 s at least.
        assert time.monotonic() - began < 10
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await read_kit.cache.get("note", ids[0])
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    # Late answers to abandoned questions are not taken for answers to later ones.
    notes = {note_id: Note(id=note_id).SerializeToString() for note_id in ids}
    await read_kit.cache.apply([Put("note", note_id, at(1), model) for note_id, model in notes.items()])
    for note_id, model in notes.items():
        assert await read_kit.cache.get("note", note_id) == Cached(model, at(1))


async def test_a_cache_that_is_away_does_not_fail_a_read(read_kit: ReadKit, own_valkey: ValkeyServer) -> None:
    note_id = await read_kit.insert_note()
    await own_valkey.stop()
    try:
        assert (await read_kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES
        with pytest.raises(StoreUnavailable, match="Redis cannot be reached") as caught:
            await read_kit.cache.watermark()
        assert caught.value.mend
    finally:
        await own_valkey.start()
    await read_kit.cache.apply(
        [Put("note", note_id, at(5), Note(id=note_id).SerializeToString())], None, at(5)
    )

    async def is_cached() -> bool:
        return (await read_kit.note(note_id)).source == read_pb2.READ_SOURCE_CACHE

    came_back: bool = await eventually(is_cached)
    assert came_back


async def test_postgres_away_is_unavailable_and_comes_back(
    read_kit: ReadKit, own_postgres: PostgresServer
) -> None:
    note_id = await read_kit.insert_note()
    cached = Note(id=str(uuid.uuid4()))
    await read_kit.cache.apply([Put("note", cached.id, at(5), cached.SerializeToString())], None, at(5))
    assert await read_kit.database.note(note_id) is not None
    await read_kit.sql.close()
    await own_postgres.stop()
    try:
        with pytest.raises(Unavailable, match="Postgres cannot be reached now"):
            await read_kit.note(str(uuid.uuid4()))
        assert (await read_kit.note(cached.id)).source == read_pb2.READ_SOURCE_CACHE
    finally:
        await own_postgres.start()
    assert (await read_kit.note(note_id)).note.id == note_id


async def test_a_restart_of_postgres_between_two_reads_is_not_noticed(
    read_kit: ReadKit, own_postgres: PostgresServer
) -> None:
    note_id = await read_kit.insert_note()
    # All kept connections are broken by it.
    await asyncio.gather(*(read_kit.database.note(note_id) for _ in range(8)))
    await read_kit.sql.close()
    await own_postgres.restart()
    assert await read_kit.database.note(note_id) is not None
    assert all(await asyncio.gather(*(read_kit.database.note(note_id) for _ in range(8))))


async def test_a_read_that_hangs_in_postgres_ends(read_kit: ReadKit, own_postgres: PostgresServer) -> None:
    note_id = await read_kit.insert_note()
    database = Database(own_postgres.dsn, timeout_s=0.3)
    try:
        async with read_kit.sql.transaction():
            await read_kit.sql.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable):
                async with asyncio.timeout(LIMIT_S):
                    await database.note(note_id)
        assert await database.note(note_id) is not None
    finally:
        await database.close()


async def test_a_database_without_tables_says_what_to_run(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.dsn_of("postgres"))
    try:
        with pytest.raises(Unavailable) as caught:
            await database.note(str(uuid.uuid4()))
        assert caught.value.mend == "run zephyr migrate"
    finally:
        await database.close()
