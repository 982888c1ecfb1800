"""The check of mapping and schema on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from bridge import values
from bridge.errors import MappingMismatch, Unreachable
from bridge.fit import check_fit
from bridge.mapping import Mapping, load_mapping

Connection = AsyncConnection[Any]


@pytest.fixture
async def connection(migrated_dsn: str) -> AsyncIterator[Connection]:
    """A connection to a database of its own with Zephyr's tables."""
    async with await AsyncConnection.connect(migrated_dsn, autocommit=True) as opened:
        yield opened


async def found(connection: Connection, mapping: Mapping, publication: str | None = None) -> list[str]:
    with pytest.raises(MappingMismatch) as raised:
        await check_fit(connection, mapping, publication)
    assert all("\n" not in line for line in raised.value.mismatches)
    return raised.value.mismatches


def things(folder: Path, columns: str, key: str = "id", workspace: str = "workspace_id") -> Mapping:
    """A mapping of the table public.things to Note."""
    path = folder / "mapping.toml"
    path.write_text(
        f'[tables."public.things"]\nkind = "thing"\nmessage = "zephyr.models.v1.Note"\nkey = "{key}"\n'
        + (f'workspace = "{workspace}"\n' if workspace else "")
        + f"columns = {{ {columns} }}\n"
    )
    return load_mapping(path)


async def test_the_default_mapping_fits_the_migrated_schema(connection: Connection) -> None:
    fitted = await check_fit(connection, load_mapping(), "zephyr")
    notes = fitted.tables["public.notes"]
    assert notes.columns["id"].type_oid == values.UUID
    assert notes.columns["metadata"].base_oid == values.JSONB
    await connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    await check_fit(connection, load_mapping(), "everything")


async def test_everything_that_is_wrong_is_said_at_once(connection: Connection) -> None:
    for statement in (
        "DROP TABLE memberships",
        "ALTER TABLE notes ALTER COLUMN title TYPE integer USING 0",
        "ALTER TABLE notes DROP COLUMN body",
        "ALTER TABLE notes REPLICA IDENTITY DEFAULT",
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE",
        "ALTER TABLE users ALTER COLUMN id DROP NOT NULL",
        "CREATE PUBLICATION chosen FOR TABLE users (id, email), workspaces WHERE (version > 1) WITH (publish = 'insert')",
    ):
        await connection.execute(statement.encode())
    lines = await found(connection, load_mapping(), "chosen")
    expected = [
        "publication chosen: leaves out operations",
        "public.memberships: there is no such table; run `zephyr migrate`",
        "public.notes.title: integer cannot become string Note.title; map a text, varchar or uuid column",
        "public.notes.body: there is no such column",
        "public.notes: replica identity is DEFAULT, and the WAL leaves out the old workspace_id and unchanged",
        "public.notes: is not in the publication chosen; run: ALTER PUBLICATION chosen ADD TABLE public.notes",
        "public.users.id: is the key of the mapping, and neither the primary key nor unique",
        "public.users.id: the key can be NULL",
        "public.users: the publication chosen leaves out display_name",
        "public.workspaces: the publication chosen filters its rows",
    ]
    for start in expected:
        assert any(line.startswith(start) for line in lines), (start, lines)
    assert len(lines) == len(expected)


async def test_following_the_mends_mends(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE notes REPLICA IDENTITY NOTHING",
        "ALTER TABLE notes ALTER COLUMN workspace_id DROP NOT NULL",
        "CREATE PUBLICATION chosen FOR TABLE users (id, email) WITH (publish = 'insert')",
    ):
        await connection.execute(statement.encode())
    lines = await found(connection, load_mapping(), "chosen")
    assert lines
    for line in lines:
        for statement in line.partition("run: ")[2].split("; "):
            await connection.execute(statement.encode())
    await check_fit(connection, load_mapping(), "chosen")


async def test_a_narrow_identity(connection: Connection, tmp_path: Path) -> None:
    for statement in (
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TABLE things (id bigint PRIMARY KEY, workspace_id varchar(20) NOT NULL, mood mood,"
        " at timestamptz, price numeric(6, 2), UNIQUE (id, workspace_id))",
    ):
        await connection.execute(statement.encode())
    mapping = things(
        tmp_path, 'workspace_id = "workspace_id", mood = "title", at = "created_at", price = "body"'
    )
    (line,) = await found(connection, mapping)
    assert line.startswith(
        "public.things: replica identity is DEFAULT, and the WAL leaves out the old workspace_id;"
    )
    await connection.execute("ALTER TABLE things REPLICA IDENTITY USING INDEX things_id_workspace_id_key")
    await check_fit(connection, mapping)
    # A column that may be stored out of line makes the narrow identity too narrow.
    await connection.execute("ALTER TABLE things ADD COLUMN body text")
    (line,) = await found(connection, things(tmp_path, 'id = "version", body = "body"'))
    assert line.startswith("public.things: replica identity is USING INDEX")
    assert "unchanged large values of body" in line


async def test_a_domain_counts_as_its_base_type(connection: Connection, tmp_path: Path) -> None:
    for statement in (
        "CREATE DOMAIN short AS varchar(20)",
        "CREATE DOMAIN shorter AS short NOT NULL CHECK (length(VALUE) < 10)",
        "CREATE TABLE things (id shorter UNIQUE)",
        "ALTER TABLE things REPLICA IDENTITY FULL",
    ):
        await connection.execute(statement.encode())
    fitted = await check_fit(connection, things(tmp_path, 'id = "id"', workspace=""))
    column = fitted.tables["public.things"].columns["id"]
    assert column.base_oid == values.VARCHAR
    assert column.type_oid not in (values.VARCHAR, values.TEXT)


async def test_names_that_need_quotes_get_them(connection: Connection, tmp_path: Path) -> None:
    await connection.execute('CREATE TABLE "Odd" ("user" uuid)')
    path = tmp_path / "mapping.toml"
    path.write_text(
        '[tables."public.Odd"]\nkind = "odd"\nmessage = "zephyr.models.v1.Note"\nkey = "user"\n'
        'columns = { user = "id" }\n'
    )
    for line in await found(connection, load_mapping(path)):
        statement = line.partition("run: ")[2].removesuffix(", or name another key")
        await connection.execute(statement.encode())
    await check_fit(connection, load_mapping(path))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE VIEW things AS SELECT * FROM notes", "is a view"),
        ("CREATE UNLOGGED TABLE things (LIKE notes INCLUDING ALL)", "is an unlogged or temporary table"),
    ],
)
async def test_what_cannot_be_mapped(
    connection: Connection, tmp_path: Path, statement: str, said: str
) -> None:
    await connection.execute(statement.encode())
    (line,) = await found(connection, things(tmp_path, 'title = "title"'))
    assert line.startswith(f"public.things: {said}")


async def test_a_unique_key_must_hold_for_every_row(connection: Connection, tmp_path: Path) -> None:
    await connection.execute("CREATE TABLE things (id uuid NOT NULL, kept bool)")
    await connection.execute("ALTER TABLE things REPLICA IDENTITY FULL")
    await connection.execute("CREATE UNIQUE INDEX ON things (id) WHERE kept")
    await connection.execute("CREATE UNIQUE INDEX ON things (id, kept)")
    mapping = things(tmp_path, 'id = "id"', workspace="")
    (line,) = await found(connection, mapping)
    assert "neither the primary key nor unique" in line
    await connection.execute("CREATE UNIQUE INDEX ON things (id) INCLUDE (kept)")
    await check_fit(connection, mapping)


async def test_a_connection_that_broke(connection: Connection, migrated_dsn: str) -> None:
    pid = connection.info.backend_pid
    async with await AsyncConnection.connect(migrated_dsn, autocommit=True) as server:
        await server.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
    with pytest.raises(Unreachable):
        await check_fit(connection, load_mapping())
