"""ReadService on real servers: what comes from the cache, what from Postgres, and what is refused."""

from __future__ import annotations

import asyncio
import secrets
import uuid

import pytest

from protos.events.v1 import read_pb2
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.cache import Cached, Put, RedisCache
from realtime.cursor import Cursor
from realtime.database import Database
from realtime.errors import ArgumentInvalid, NotFound, SettingInvalid
from tests.fixtures.read_kit import ReadKit, at
from zephyr.stack.postgres import PostgresServer

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)


async def test_a_note_is_read_from_postgres_field_by_field(read_kit: ReadKit) -> None:
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
    note_id = await read_kit.insert_note(title="Ünïcode", metadata=metadata)
    response = await read_kit.note(note_id)
    cursor = await read_kit.sql.execute(
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


async def test_a_user_is_read_from_postgres_field_by_field(read_kit: ReadKit) -> None:
    user_id, email = str(uuid.uuid4()), f"{secrets.token_hex(6)}@example.org"
    await read_kit.sql.execute(
        "INSERT INTO users (id, email, display_name, metadata, version, created_at, updated_at) VALUES"
        " (%s, %s, 'Ada', '{\"k\": 1}', 7, '1969-12-31 23:59:59.999999+00', '1970-01-01 00:00:00+00')",
        (user_id, email),
    )
    response = await read_kit.user(user_id)
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
    note_id = await read_kit.insert_note(author_id=user_id)
    assert (await read_kit.note(note_id)).note.author_id == user_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinity", INT64_MAX),
        ("-infinity", INT64_MIN),
        ("4713-01-01 00:00:00+00 BC", -210863520000000000),
        ("9999-12-31 23:59:59.999999+00", 253402300799999999),
    ],
)
async def test_the_bounds_of_time(read_kit: ReadKit, text: str, expected: int) -> None:
    note_id = await read_kit.insert_note(created_at=text)
    assert (await read_kit.note(note_id)).note.created_at == expected


async def test_a_cached_state_comes_with_its_cursor(read_kit: ReadKit) -> None:
    note = Note(id=str(uuid.uuid4()), title="cached")
    await read_kit.cache.apply([Put("note", note.id, at(5), note.SerializeToString())], None, at(5))
    response = await read_kit.note(note.id.upper())
    assert (response.note, response.source) == (note, read_pb2.READ_SOURCE_CACHE)
    assert Cursor.decode(response.cursor) == at(5)


async def test_a_burst_of_reads_is_no_outage(read_kit: ReadKit) -> None:
    notes = [Note(id=str(uuid.uuid4())) for _ in range(1000)]
    await read_kit.cache.apply([Put("note", note.id, at(5), note.SerializeToString()) for note in notes])
    responses = await asyncio.gather(*(read_kit.note(note.id) for note in notes))
    assert [response.note for response in responses] == notes
    assert {response.source for response in responses} == {read_pb2.READ_SOURCE_CACHE}


async def test_what_postgres_said_is_lent_to_the_cache_until_the_projector_knows(read_kit: ReadKit) -> None:
    note_id = await read_kit.insert_note()
    response = await read_kit.note(note_id)
    assert await read_kit.cache.get("note", note_id) == Cached(
        response.note.SerializeToString(deterministic=True), None
    )
    await read_kit.sql.execute("DELETE FROM notes WHERE id = %s", (note_id,))
    assert await read_kit.note(note_id) == response
    await read_kit.cache.apply([Put("note", note_id, at(6), None)], None, at(6))
    with pytest.raises(NotFound):
        await read_kit.note(note_id)


async def test_a_tombstone_is_not_found(read_kit: ReadKit) -> None:
    note_id = await read_kit.insert_note()
    await read_kit.cache.apply([Put("note", note_id, at(5), None)], None, at(5))
    with pytest.raises(NotFound) as caught:
        await read_kit.note(note_id)
    assert caught.value.resource == ("note", note_id)


async def test_what_is_nowhere_is_not_found(read_kit: ReadKit) -> None:
    user_id = str(uuid.uuid4())
    with pytest.raises(NotFound, match=user_id) as caught:
        await read_kit.user(user_id)
    assert caught.value.resource == ("user", user_id)


@pytest.mark.parametrize("text", ["", "x", "{22222222-2222-4222-8222-222222222222}", "2" * 32, "ü" * 100_000])
async def test_a_malformed_id_is_named(read_kit: ReadKit, text: str) -> None:
    with pytest.raises(ArgumentInvalid, match="is no UUID") as caught:
        await read_kit.note(text)
    assert [field for field, _ in caught.value.violations] == ["id"]
    assert len(caught.value.message) < 200


async def test_a_damaged_cached_state_is_read_from_postgres(read_kit: ReadKit) -> None:
    note_id = await read_kit.insert_note()
    await read_kit.cache.apply([Put("note", note_id, at(5), b"\xff\xff")], None, at(5))
    assert (await read_kit.note(note_id)).source == read_pb2.READ_SOURCE_POSTGRES


async def test_many_reads_share_few_connections(read_kit: ReadKit, own_postgres: PostgresServer) -> None:
    note_id = await read_kit.insert_note()
    notes = await asyncio.gather(*(read_kit.database.note(note_id) for _ in range(200)))
    assert {note.id for note in notes if note} == {note_id}
    cursor = await read_kit.sql.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zephyr-read'"
    )
    assert (await cursor.fetchone() or (99,))[0] <= 4


def test_malformed_addresses_are_settings() -> None:
    with pytest.raises(SettingInvalid, match="Redis"):
        RedisCache("http://localhost")
    with pytest.raises(SettingInvalid, match="Postgres"):
        Database("no dsn")
