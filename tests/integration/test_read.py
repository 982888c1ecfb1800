"""ReadService and projector on real servers, with these servers going away.

The file has servers of its own, as it stops them.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from redis.asyncio import Redis

from protos.events.v1 import read_pb2, read_pb2_grpc
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.cache import Cached, Clear, Put, RedisCache
from realtime.cursor import Cursor
from realtime.database import Database
from realtime.entry import make_entry
from realtime.errors import ArgumentInvalid, NotFound, SettingInvalid, StoreUnavailable, Unavailable
from realtime.projector import Backoff, Projector
from realtime.services.read import ReadService
from realtime.status import from_rpc_error
from tests.fixtures.eventually import eventually
from zephyr.migrations.runner import migrate
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.valkey import ValkeyServer

EPOCH = "0190a0000000000000aa"
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
LIMIT_S = 20


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), {"fsync": "off"})
    asyncio.run(server.start())
    migrate(server.dsn)
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@dataclass
class Kit:
    """A server of ReadService, and what stands behind it."""

    stub: read_pb2_grpc.ReadServiceAsyncStub
    cache: RedisCache
    database: Database
    sql: AsyncConnection

    async def note(self, note_id: str) -> read_pb2.GetNoteResponse:
        """Raises the typed error."""
        try:
            return await self.stub.GetNote(read_pb2.GetNoteRequest(id=note_id), timeout=LIMIT_S)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc

    async def user(self, user_id: str) -> read_pb2.GetUserResponse:
        """Raises the typed error."""
        try:
            return await self.stub.GetUser(read_pb2.GetUserRequest(id=user_id), timeout=LIMIT_S)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc) from exc

    async def insert_note(self, created_at: str = "2026-01-02 03:04:05.678901+00", **values: object) -> str:
        """A note in a workspace of its own; gives its id."""
        cursor = await self.sql.execute(
            "INSERT INTO workspaces (slug, name) VALUES (%s, 'w') RETURNING id", (secrets.token_hex(6),)
        )
        row = await cursor.fetchone()
        assert row is not None
        cursor = await self.sql.execute(
            "INSERT INTO notes (workspace_id, author_id, title, body, metadata, created_at, updated_at)"
            " VALUES (%s, %s, %s, 'body', %s, %s, '2026-01-02 03:04:05+00') RETURNING id",
            (
                row[0],
                values.get("author_id"),
                values.get("title", "title"),
                Jsonb(values.get("metadata", {})),
                created_at,
            ),
        )
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
async def kit(postgres: PostgresServer, valkey: ValkeyServer) -> AsyncIterator[Kit]:
    cache = RedisCache(valkey.url, f"test-{secrets.token_hex(4)}:", read_timeout_s=1)
    database = Database(postgres.dsn, timeout_s=2)
    server = grpc.aio.server()
    read_pb2_grpc.add_ReadServiceServicer_to_server(ReadService(cache, database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            await AsyncConnection.connect(postgres.dsn, autocommit=True) as sql,
        ):
            yield Kit(read_pb2_grpc.ReadServiceStub(channel), cache, database, sql)
    finally:
        await server.stop(None)
        await database.close()
        await cache.close()


def at(sequence: int) -> Cursor:
    return Cursor(EPOCH, sequence, sequence * 10)


async def test_a_note_is_read_from_postgres_field_by_field(kit: Kit) -> None:
    metadata = {
        "text": 'plain "quoted" ü',
        "number": 1.50,
        "big": 2**70,
        "yes": True,
        "nothing": None,
        "list": [1, "a"],
        "object": {"b": 1, "a": "x"},
        "empty": "",
    }
    note_id = await kit.insert_note(title="Ünïcode", metadata=metadata)
    response = await kit.note(note_id)
    cursor = await kit.sql.execute(
        "SELECT workspace_id::text, (SELECT jsonb_object_agg(k, (metadata -> k)::text)"
        " FROM jsonb_object_keys(metadata) k) FROM notes WHERE id = %s",
        (note_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    expected = {**row[1], "text": metadata["text"], "empty": ""}
    assert expected["object"] == '{"a": "x", "b": 1}'
    assert expected["nothing"] == "null"
    assert response.note == Note(
        id=note_id,
        workspace_id=row[0],
        author_id="",
        title="Ünïcode",
        body="body",
        version=1,
        created_at=1767323045678901,
        updated_at=1767323045000000,
        metadata=expected,
    )
    assert (response.cursor, response.source) == (b"", read_pb2.READ_SOURCE_POSTGRES)


async def test_a_user_is_read_from_postgres_field_by_field(kit: Kit) -> None:
    user_id, email = str(uuid.uuid4()), f"{secrets.token_hex(6)}@example.org"
    await kit.sql.execute(
        "INSERT INTO users (id, email, display_name, metadata, version, created_at, updated_at) VALUES"
        " (%s, %s, 'Ada', '{\"k\": 1}', 7, '1969-12-31 23:59:59.999999+00', '1970-01-01 00:00:00+00')",
        (user_id, email),
    )
    response = await kit.user(user_id)
    expected = User(
        id=user_id,
        email=email,
        display_name="Ada",
        version=7,
        created_at=-1,
        updated_at=0,
        metadata={"k": "1"},
    )
    assert response.user == expected
    note_id = await kit.insert_note(author_id=user_id)
    assert (await kit.note(note_id)).note.author_id == user_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinity", INT64_MAX),
        ("-infinity", INT64_MIN),
        ("4713-01-01 00:00:00+00 BC", -210863520000000000),
        ("9999-12-31 23:59:59.999999+00", 253402300799999999),
    ],
)
async def test_the_bounds_of_time(kit: Kit, text: str, expected: int) -> None:
    note_id = await kit.insert_note(created_at=text)
    assert (await kit.note(note_id)).note.created_at == expected


async def test_a_cached_state_comes_with_its_cursor(kit: Kit) -> None:
    note = Note(id=str(uuid.uuid4()), title="cached")
    await kit.cache.apply([Put("note", note.id, at(5), note.SerializeToString())], None, at(5))
    response = await kit.note(note.id.upper())
    assert (response.note, response.source) == (note, read_pb2.READ_SOURCE_CACHE)
    assert Cursor.decode(response.cursor) == at(5)


async def test_a_burst_of_reads_is_no_outage(kit: Kit) -> None:
    notes = [Note(id=str(uuid.uuid4())) for _ in range(1000)]
    await kit.cache.apply([Put("note", note.id, at(5), note.SerializeToString()) for note in notes])
    responses = await asyncio.gather(*(kit.note(note.id) for note in notes))
    assert [response.note for response in responses] == notes
    assert {response.source for response in responses} == {read_pb2.READ_SOURCE_CACHE}


async def test_what_postgres_said_is_lent_to_the_cache_until_the_projector_knows(kit: Kit) -> None:
    note_id = await kit.insert_note()
    response = await kit.note(note_id)
    assert await kit.cache.get("note", note_id) == Cached(
        response.note.SerializeToString(deterministic=True), None
    )
    await kit.sql.execute("DELETE FROM notes WHERE id = %s", (note_id,))
    assert await kit.note(note_id) == response
    await kit.cache.apply([Put("note", note_id, at(6), None)], None, at(6))
    with pytest.raises(NotFound):
        await kit.note(note_id)


async def test_a_tombstone_is_not_found(kit: Kit) -> None:
    note_id = await kit.insert_note()
    await kit.cache.apply([Put("note", note_id, at(5), None)], None, at(5))
    with pytest.raises(NotFound) as caught:
        await kit.note(note_id)
    assert caught.value.resource == ("note", note_id)


async def test_what_is_nowhere_is_not_found(kit: Kit) -> None:
    user_id = str(uuid.uuid4())
    with pytest.raises(NotFound, match=user_id) as caught:
        await kit.user(user_id)
    assert caught.value.resource == ("user", user_id)


@pytest.mark.parametrize("text", ["", "x", "{22222222-2222-4222-8222-222222222222}", "2" * 32, "ü" * 100_000])
async def test_a_malformed_id_is_named(kit: Kit, text: str) -> None:
    with pytest.raises(ArgumentInvalid, match="is no UUID") as caught:
        await kit.note(text)
    assert [field for field, _ in caught.value.violations] == ["id"]
    assert len(caught.value.message) < 200


async def test_a_damaged_cached_state_is_read_from_postgres(kit: Kit) -> None:
    note_id = await kit.insert_note()
    await kit.cache.apply([Put("note", note_id, at(5), b"\xff\xff")], None, at(5))
    assert (await kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES


async def test_a_hanging_cache_costs_one_wait_and_not_one_a_read(kit: Kit, valkey: ValkeyServer) -> None:
    ids = [await kit.insert_note() for _ in range(20)]
    await kit.note(ids[0])
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for note_id in ids:
            assert (await kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES
        # With a wait a read it would be 20 × 1 s at least.
        assert time.monotonic() - began < 10
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await kit.cache.get("note", ids[0])
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    # Late answers to abandoned questions are not taken for answers to later ones.
    notes = {note_id: Note(id=note_id).SerializeToString() for note_id in ids}
    await kit.cache.apply([Put("note", note_id, at(1), model) for note_id, model in notes.items()])
    for note_id, model in notes.items():
        assert await kit.cache.get("note", note_id) == Cached(model, at(1))


async def test_a_cache_that_is_away_does_not_fail_a_read(kit: Kit, valkey: ValkeyServer) -> None:
    note_id = await kit.insert_note()
    await valkey.stop()
    try:
        assert (await kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES
        with pytest.raises(StoreUnavailable, match="Redis cannot be reached") as caught:
            await kit.cache.watermark()
        assert caught.value.mend
    finally:
        await valkey.start()
    await kit.cache.apply([Put("note", note_id, at(5), Note(id=note_id).SerializeToString())], None, at(5))

    async def is_cached() -> bool:
        return (await kit.note(note_id)).source == read_pb2.READ_SOURCE_CACHE

    came_back: bool = await eventually(is_cached)
    assert came_back


async def test_postgres_away_is_unavailable_and_comes_back(kit: Kit, postgres: PostgresServer) -> None:
    note_id = await kit.insert_note()
    cached = Note(id=str(uuid.uuid4()))
    await kit.cache.apply([Put("note", cached.id, at(5), cached.SerializeToString())], None, at(5))
    assert await kit.database.note(note_id) is not None
    await kit.sql.close()
    await postgres.stop()
    try:
        with pytest.raises(Unavailable, match="Postgres cannot be reached now"):
            await kit.note(str(uuid.uuid4()))
        assert (await kit.note(cached.id)).source == read_pb2.READ_SOURCE_CACHE
    finally:
        await postgres.start()
    assert (await kit.note(note_id)).note.id == note_id


async def test_a_restart_of_postgres_between_two_reads_is_not_noticed(
    kit: Kit, postgres: PostgresServer
) -> None:
    note_id = await kit.insert_note()
    # All kept connections are broken by it.
    await asyncio.gather(*(kit.database.note(note_id) for _ in range(8)))
    await kit.sql.close()
    await postgres.restart()
    assert await kit.database.note(note_id) is not None
    assert all(await asyncio.gather(*(kit.database.note(note_id) for _ in range(8))))


async def test_a_read_that_hangs_in_postgres_ends(kit: Kit, postgres: PostgresServer) -> None:
    note_id = await kit.insert_note()
    database = Database(postgres.dsn, timeout_s=0.3)
    try:
        async with kit.sql.transaction():
            await kit.sql.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable):
                async with asyncio.timeout(LIMIT_S):
                    await database.note(note_id)
        assert await database.note(note_id) is not None
    finally:
        await database.close()


async def test_many_reads_share_few_connections(kit: Kit, postgres: PostgresServer) -> None:
    note_id = await kit.insert_note()
    notes = await asyncio.gather(*(kit.database.note(note_id) for _ in range(200)))
    assert {note.id for note in notes if note} == {note_id}
    cursor = await kit.sql.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zephyr-read'"
    )
    assert (await cursor.fetchone() or (99,))[0] <= 4


async def test_a_database_without_tables_says_what_to_run(postgres: PostgresServer) -> None:
    database = Database(postgres.dsn_of("postgres"))
    try:
        with pytest.raises(Unavailable) as caught:
            await database.note(str(uuid.uuid4()))
        assert caught.value.mend == "run zephyr migrate"
    finally:
        await database.close()


def test_malformed_addresses_are_settings() -> None:
    with pytest.raises(SettingInvalid, match="Redis"):
        RedisCache("http://localhost")
    with pytest.raises(SettingInvalid, match="Postgres"):
        Database("no dsn")


async def test_the_projector_outlives_its_store(valkey: ValkeyServer) -> None:
    """Valkey is killed and started again, empty: the batch waits, then the cache is built anew."""
    cache = RedisCache(valkey.url, f"test-{secrets.token_hex(4)}:", read_timeout_s=1)
    projector = Projector(cache, Backoff(first_s=0.01, most_s=0.05))
    note_id = str(uuid.uuid4())
    payload = Event(subject=note_id, note=Note(id=note_id, title="t")).SerializeToString()
    subject = str(fmt.Subject(str(uuid.uuid4()), "note", note_id))
    entry = make_entry(EPOCH, subject, {fmt.VERB: fmt.CREATED}, payload, 3, 30)
    try:
        assert await projector.start() is None
        assert await projector.apply(EPOCH, [entry], at(4))
        await valkey.kill()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(projector.apply(EPOCH, [], at(5)))
            await eventually(lambda: projector.is_down)
            assert not waiting.done()
            await valkey.start()
        assert not waiting.result()
        assert await projector.start() is None
        assert await projector.apply(EPOCH, [entry], at(5))
        assert await cache.get("note", note_id) == Cached(
            Note(id=note_id, title="t").SerializeToString(), at(3)
        )
        assert await cache.watermark() == at(5)
    finally:
        await cache.close()


async def test_losing_the_meta_hash_alone_is_losing_all(valkey: ValkeyServer) -> None:
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(valkey.url, prefix, read_timeout_s=1)
    try:
        await cache.apply([Put("note", "a", at(1), b"1"), Clear("note", at(2))], None, at(2))
        assert await cache.get("note", "a") == Cached(None, at(2))
        async with Redis.from_url(valkey.url) as redis:
            await redis.delete(f"{prefix}meta")
        # The truncation was lost with it: the state from before must not come back.
        assert await cache.get("note", "a") is None
        assert await cache.watermark() is None
        assert not await cache.apply([], at(2), at(3))
    finally:
        await cache.close()


@pytest.mark.parametrize("other_writer", [False, True])
async def test_a_flush_amid_a_batch_leaves_no_watermark_without_its_states(
    valkey: ValkeyServer, other_writer: bool
) -> None:
    """The states of the first chunks are lost: the last chunk must not say that they stand,
    nor when another writer has begun anew in between."""
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(valkey.url, prefix, read_timeout_s=1)
    writes = [Put("note", f"n{number}", at(number), bytes(200)) for number in range(1, 2001)]
    flushed_amid = 0
    try:
        async with Redis.from_url(valkey.url) as redis:
            for _ in range(15):
                await redis.flushall()
                async with asyncio.TaskGroup() as tasks:
                    applying = tasks.create_task(cache.apply(writes, None, at(2000)))
                    async with asyncio.timeout(LIMIT_S):
                        while int(await redis.dbsize()) < 300:
                            pass  # each turn is a round trip: a pause would miss the middle
                    async with redis.pipeline(transaction=True) as both:
                        both.flushall()
                        if other_writer:
                            began = ["generation", "f" * 16, "watermark", f"{EPOCH}{1:016x}{10:016x}"]
                            both.hset(f"{prefix}meta", items=began)
                        await both.execute()
                flushed_amid += not applying.result()
                if await cache.watermark() == at(2000):
                    assert await redis.dbsize() == 2001
        assert flushed_amid
    finally:
        await cache.close()


async def test_tombstones_expire_and_an_unfinished_beginning_does_too(valkey: ValkeyServer) -> None:
    prefix = f"test-{secrets.token_hex(4)}:"
    cache = RedisCache(valkey.url, prefix, read_timeout_s=1)
    try:
        async with Redis.from_url(valkey.url) as redis:
            await cache.apply([Put("note", "a", at(1), None), Put("note", "b", at(2), b"2")])
            assert 86_000 < await redis.ttl(f"{prefix}note:a") <= 86_400
            assert await redis.ttl(f"{prefix}note:b") == -1
            assert 0 < await redis.ttl(f"{prefix}meta") <= 60
            await cache.apply([], None, at(2))
            assert await redis.ttl(f"{prefix}meta") == -1
    finally:
        await cache.close()
