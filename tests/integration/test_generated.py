"""Generated columns on a real server: stored ones are sent, and no writer is kept from its updates."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from bridge.errors import MappingMismatch
from bridge.fit import check_fit
from bridge.publication import ensure_publication
from tests.fixtures.wal_events import tap, things
from tests.integration.bridge_command import execute

STORED = (
    "CREATE TABLE things (id text PRIMARY KEY, n bigint, twice bigint GENERATED ALWAYS AS (n * 2) STORED)",
    "ALTER TABLE things REPLICA IDENTITY FULL",
)


@pytest.mark.parametrize(
    ("columns", "numbers"),
    [('twice = "number"', [8, 10]), ('n = "number"', [4, 5])],
    ids=("mapped", "not mapped"),
)
async def test_stored_columns(
    postgres_dsn: str, slot_name: str, tmp_path: Path, columns: str, numbers: list[int]
) -> None:
    execute(postgres_dsn, *STORED)
    async with tap(postgres_dsn, slot_name, things(tmp_path, columns)) as opened:
        # Without them in the publication, Postgres would refuse this update, mapped or not.
        execute(postgres_dsn, "INSERT INTO things VALUES ('a', 4)", "UPDATE things SET n = 5")
        seen = await opened.events()
        assert [each.thing.number for each in seen] == numbers
        assert list(seen[1].event.changed) == ["number"]


async def test_a_publication_from_before(postgres_dsn: str, tmp_path: Path) -> None:
    execute(
        postgres_dsn,
        *STORED,
        "CREATE PUBLICATION old FOR TABLE things WITH (publish_via_partition_root = true)",
    )
    mapping = things(tmp_path, 'twice = "number"')
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        with pytest.raises(MappingMismatch) as raised:
            await check_fit(connection, mapping, "old")
        (line,) = raised.value.mismatches
        assert line == (
            "public.things.twice: is a generated column, and the publication old leaves them out; "
            "run: ALTER PUBLICATION old SET (publish_generated_columns = stored)"
        )
        await ensure_publication(connection, "old", mapping.tables, create=False)
        await check_fit(connection, mapping, "old")


async def test_virtual_columns(postgres_dsn: str, tmp_path: Path) -> None:
    execute(
        postgres_dsn,
        "CREATE TABLE things (id text PRIMARY KEY, n bigint, twice bigint GENERATED ALWAYS AS (n * 2) VIRTUAL)",
        "ALTER TABLE things REPLICA IDENTITY FULL",
        "CREATE PUBLICATION p FOR TABLE things",
        "INSERT INTO things VALUES ('a', 1)",
    )
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        execute(postgres_dsn, "UPDATE things SET n = 2")
    execute(postgres_dsn, "DROP PUBLICATION p")
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        with pytest.raises(MappingMismatch) as raised:
            await check_fit(connection, things(tmp_path, 'twice = "number"'))
        first, second = raised.value.mismatches
        assert first.startswith("public.things.twice: is a virtual generated column")
        assert second.startswith("public.things: replica identity is FULL, and with the virtual generated")
