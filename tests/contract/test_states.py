"""What every source of present states promises, held against each of them, on real servers."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from protos.events.v1.event_pb2 import Event
from realtime.database import Database
from realtime.errors import Unavailable
from realtime.filters import Filter
from realtime.states import PAGE_BYTES, PAGE_ITEMS, StatePage, States
from realtime.states_postgres import PostgresStates

NONE = Filter()


@dataclass
class StatesKit:
    """A source, and how rows come to it."""

    states: States
    sql: AsyncConnection[Any]
    dsn: str

    async def one(self, statement: str, *parameters: object) -> str:
        cursor = await self.sql.execute(statement.encode(), parameters)
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])

    async def workspace(self) -> str:
        return await self.one(
            "INSERT INTO workspaces (slug, name) VALUES (%s, 'W') RETURNING id", secrets.token_hex(6)
        )

    async def user(self, *workspaces: str) -> str:
        user = await self.one("INSERT INTO users (email) VALUES (%s) RETURNING id", secrets.token_hex(6))
        for workspace in workspaces:
            await self.one(
                "INSERT INTO memberships (workspace_id, user_id) VALUES (%s, %s) RETURNING id",
                workspace,
                user,
            )
        return user

    async def notes(self, workspace: str, count: int, size: int = 10) -> None:
        await self.sql.execute(
            "INSERT INTO notes (workspace_id, title, body, metadata) SELECT %s, 't' || n, repeat('x', %s),"
            """ '{"a": 1, "b": null, "c": "d"}' FROM generate_series(1, %s) n""",
            (workspace, size, count),
        )

    async def pages(self, kind: str, wanted: Filter = NONE) -> list[StatePage]:
        pages: list[StatePage] = []
        after: str | None = ""
        while after is not None:
            pages.append(await self.states.page(kind, wanted, after))
            after = pages[-1].after
        return pages

    async def read(self, kind: str, wanted: Filter = NONE) -> list[Event]:
        return [event for page in await self.pages(kind, wanted) for event in page.events]

    async def subjects(self, kind: str, wanted: Filter = NONE) -> list[str]:
        return sorted(event.subject for event in await self.read(kind, wanted))


@pytest.fixture
async def kit(migrated_dsn: str) -> AsyncIterator[StatesKit]:
    database = Database(migrated_dsn)
    try:
        async with await AsyncConnection.connect(migrated_dsn, autocommit=True) as sql:
            yield StatesKit(PostgresStates(database), sql, migrated_dsn)
    finally:
        await database.close()


async def test_nothing_is_one_empty_page(kit: StatesKit) -> None:
    for kind in kit.states.kinds:
        (page,) = await kit.pages(kind)
        assert (list(page.events), page.after) == ([], None)


async def test_each_state_comes_once_whatever_the_pages(kit: StatesKit) -> None:
    one, two = await kit.workspace(), await kit.workspace()
    await kit.notes(one, PAGE_ITEMS)
    await kit.notes(two, PAGE_ITEMS + 1)
    for wanted, count in (
        (NONE, 2 * PAGE_ITEMS + 1),
        (Filter(frozenset((one,))), PAGE_ITEMS),
        (Filter(frozenset((one, two))), 2 * PAGE_ITEMS + 1),
        (Filter(frozenset((str(uuid.uuid4()), two))), PAGE_ITEMS + 1),
    ):
        pages = await kit.pages("note", wanted)
        assert all(len(page.events) <= PAGE_ITEMS for page in pages)
        found = [event.subject for page in pages for event in page.events]
        assert len(found) == len(set(found)) == count


async def test_a_page_is_bounded_in_bytes_and_takes_one_state_of_any_size(kit: StatesKit) -> None:
    workspace = await kit.workspace()
    await kit.notes(workspace, 3, size=PAGE_BYTES * 2)
    await kit.notes(workspace, 20, size=PAGE_BYTES // 4)
    pages = await kit.pages("note")
    assert sum(len(page.events) for page in pages) == 23
    for page in pages:
        assert sum(event.ByteSize() for event in page.events[:-1]) < PAGE_BYTES * 1.1


async def test_a_state_says_what_the_stream_would(kit: StatesKit) -> None:
    workspace = await kit.workspace()
    await kit.notes(workspace, 1)
    await kit.sql.execute(
        "UPDATE notes SET created_at = '-infinity', title = 'ü', body = E'tab\\t\\nx'", prepare=False
    )
    (event,) = await kit.read("note")
    assert (event.type, event.workspace_id) == ("note.read", workspace)
    assert event.subject == event.note.id
    assert event.note.created_at == -(1 << 63)
    assert (event.note.title, event.note.body, event.note.author_id) == ("ü", "tab\t\nx", "")
    assert dict(event.note.metadata) == {"a": "1", "b": "null", "c": "d"}
    assert event.note.version == 2
    (of_workspace,) = await kit.read("workspace", Filter(frozenset((workspace,))))
    assert of_workspace.workspace_id == of_workspace.workspace.id == workspace


async def test_users_are_of_the_workspaces_that_they_are_members_of(kit: StatesKit) -> None:
    one, two = await kit.workspace(), await kit.workspace()
    first, both, nobody = await kit.user(one), await kit.user(one, two), await kit.user()
    assert await kit.subjects("user") == sorted((first, both, nobody))
    assert await kit.subjects("user", Filter(frozenset((one,)))) == sorted((first, both))
    assert set(await kit.subjects("user", Filter(frozenset((one, two))))) == {first, both}
    assert await kit.subjects("user", Filter(frozenset((two,)), entities=frozenset((first,)))) == []
    assert [event.workspace_id for event in await kit.read("user")] == ["_"] * 3
    members = await kit.read("membership", Filter(frozenset((two,))))
    assert [(event.membership.user_id, event.workspace_id) for event in members] == [(both, two)]
    found = await kit.states.users([first, nobody, str(uuid.uuid4())])
    assert sorted(event.subject for event in found.events) == sorted((first, nobody))
    assert list((await kit.states.users([])).events) == []


async def test_entities_and_ids_that_cannot_be_any(kit: StatesKit) -> None:
    user = await kit.user()
    assert await kit.subjects("user", Filter(entities=frozenset((user, "no-uuid")))) == [user]
    assert await kit.subjects("user", Filter(entities=frozenset(("no-uuid",)))) == []


async def test_a_later_page_sees_what_was_written_meanwhile(kit: StatesKit) -> None:
    workspace = await kit.workspace()
    await kit.notes(workspace, PAGE_ITEMS + 100)
    page = await kit.states.page("note", NONE)
    assert page.after is not None
    await kit.sql.execute("UPDATE notes SET title = 'later'")
    rest = await kit.states.page("note", NONE, page.after)
    assert {event.note.title for event in rest.events} == {"later"}


async def test_what_was_read_stands_before_the_position(kit: StatesKit) -> None:
    before = await kit.states.position()
    await kit.user()
    async with kit.sql.transaction():
        # A commit that does not wait for the disk is seen before it is written.
        await kit.sql.execute("SET LOCAL synchronous_commit = off")
        await kit.user()
    assert len(await kit.read("user")) == 2
    after = await kit.states.position()
    lsn = await kit.one("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
    assert before < after <= int(lsn)


async def test_settling_waits_for_who_writes_and_not_for_ever(
    kit: StatesKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.states_postgres._SETTLE_S", 60.0)
    async with await AsyncConnection.connect(kit.dsn) as other:
        await other.execute("INSERT INTO users (email) VALUES ('open')")
        settling = asyncio.ensure_future(kit.states.settle())
        done, _ = await asyncio.wait((settling,), timeout=0.1)
        assert not done
        await other.commit()
        async with asyncio.timeout(20):
            await settling
        assert len(await kit.read("user")) == 1
        # Who does not end is in no commit.
        await other.execute("INSERT INTO users (email) VALUES ('long')")
        monkeypatch.setattr("realtime.states_postgres._SETTLE_S", 0.2)
        async with asyncio.timeout(20):
            await kit.states.settle()


async def test_a_role_that_may_not_write_to_the_wal_gets_a_position(
    kit: StatesKit,
) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    async with await AsyncConnection.connect(kit.dsn, autocommit=True) as sql:
        await sql.execute(f"CREATE ROLE {role} LOGIN".encode())
        functions = await sql.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'pg_logical_emit_message'"
        )
        for (function,) in await functions.fetchall():
            await sql.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC".encode())
        await sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
        database = Database(psycopg.conninfo.make_conninfo(kit.dsn, user=role))
        try:
            await kit.user()
            states = PostgresStates(database)
            await states.settle()
            assert len((await states.page("user", NONE)).events) == 1
            assert await states.position() > 0
        finally:
            await database.close()
            await sql.execute(f"DROP OWNED BY {role}".encode())
            await sql.execute(f"DROP ROLE {role}".encode())


async def test_a_source_that_is_away_says_so() -> None:
    database = Database("postgresql://nobody@127.0.0.1:9/none", timeout_s=1)
    states = PostgresStates(database)
    for read in (states.settle, states.position):
        with pytest.raises(Unavailable):
            await read()
    with pytest.raises(Unavailable):
        await states.page("note", NONE)
    await database.close()
