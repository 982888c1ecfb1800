"""Partitioned tables on a real server: their rows are events of the root, whatever partition has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from bridge import chunks
from bridge.errors import EventRejected, MappingMismatch
from bridge.fit import check_fit
from bridge.mapping import Mapping, load_mapping
from tests.fixtures.wal_events import Seen, Tap, tap, things
from tests.integration.bridge_command import execute

COLUMNS = 'id = "id", text = "text", region = "number"'
LARGE = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n"
TABLE = (
    "CREATE TABLE things (id text, region int NOT NULL, text text, PRIMARY KEY (id, region))"
    " PARTITION BY LIST (region)",
    "CREATE TABLE one PARTITION OF things FOR VALUES IN (1)",
    # The columns in another order, and one that was dropped: the rows arrive in the root's order.
    "CREATE TABLE two (gone int, text text, region int NOT NULL, id text NOT NULL)",
    "ALTER TABLE two DROP COLUMN gone",
    "ALTER TABLE things ATTACH PARTITION two FOR VALUES IN (2)",
    "CREATE TABLE more PARTITION OF things FOR VALUES IN (3, 4) PARTITION BY LIST (region)",
    "CREATE TABLE three PARTITION OF more FOR VALUES IN (3)",
)


def made(dsn: str, *full: str) -> None:
    execute(dsn, *TABLE, *(f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in full))


async def mismatches(dsn: str, mapping: Mapping) -> list[str]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        try:
            await check_fit(connection, mapping)
        except MappingMismatch as exc:
            return exc.mismatches
    return []


def shown(seen: list[Seen]) -> list[tuple[str, str, int]]:
    """Verb, entity and region of each."""
    return [(each.verb, each.entity, each.thing.number) for each in seen]


@pytest.fixture
def mapping(tmp_path: Path) -> Mapping:
    return things(tmp_path, COLUMNS)


async def happened(dsn: str, opened: Tap, *statements: str) -> list[Seen]:
    execute(dsn, *statements)
    return await opened.events()


async def test_rows_are_the_roots(postgres_dsn: str, slot_name: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        seen = await happened(
            postgres_dsn,
            opened,
            "INSERT INTO things VALUES ('a', 1, 't'), ('b', 2, 't'), ('c', 3, 't')",
            "UPDATE things SET text = 'u' WHERE id = 'b'",
            "DELETE FROM three",
        )
        assert shown(seen) == [
            ("created", "a", 1),
            ("created", "b", 2),
            ("created", "c", 3),
            ("updated", "b", 2),
            ("deleted", "c", 3),
        ]
        assert {each.event.source for each in seen} == {"/postgres/1/d/public.things"}
        assert list(seen[3].event.changed) == ["text"]
        assert seen[3].thing.text == "u"


async def test_a_row_that_moves_goes_and_comes(postgres_dsn: str, slot_name: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    execute(postgres_dsn, f"INSERT INTO things VALUES ('a', 1, ({LARGE}))")
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        seen = await happened(postgres_dsn, opened, "UPDATE things SET region = 2")
        assert shown(seen) == [("deleted", "a", 1), ("created", "a", 2)]
        # The WAL has the large value in both, though the update left it alone.
        assert [len(each.thing.text) for each in seen] == [6400, 6400]


async def test_truncations(postgres_dsn: str, slot_name: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        rows = "INSERT INTO things VALUES ('a', 1, 't'), ('b', 2, 't')"
        assert shown(await happened(postgres_dsn, opened, rows, "TRUNCATE things"))[2:] == [
            ("truncated", "_", 0)
        ]
        # Nothing of this is in the WAL that the root's publication sends: docs/mapping.md says so.
        assert await happened(postgres_dsn, opened, "TRUNCATE one") == []


async def test_partitions_that_come_and_go(postgres_dsn: str, slot_name: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        # Rows that a table had before it was attached, or has when it is detached, make no events.
        assert (
            await happened(
                postgres_dsn,
                opened,
                "CREATE TABLE five (LIKE things)",
                "ALTER TABLE five REPLICA IDENTITY FULL",
                "INSERT INTO five VALUES ('before', 5, 't')",
                "ALTER TABLE things ATTACH PARTITION five FOR VALUES IN (5)",
            )
            == []
        )
        seen = await happened(
            postgres_dsn,
            opened,
            "INSERT INTO things VALUES ('after', 5, 't')",
            "UPDATE five SET text = 'u'",
            "ALTER TABLE things DETACH PARTITION five",
            "DELETE FROM five",
        )
        assert shown(seen) == [("created", "after", 5), ("updated", "before", 5), ("updated", "after", 5)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE things SET region = region WHERE id = 'f'",
        # The WAL has the old key, and neither the old text nor, being large, the new one.
        "UPDATE things SET id = 'g' WHERE id = 'f'",
    ],
)
async def test_a_partition_that_came_without_full(
    postgres_dsn: str, slot_name: str, mapping: Mapping, statement: str
) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        seen = await happened(
            postgres_dsn,
            opened,
            "CREATE TABLE four PARTITION OF more FOR VALUES IN (4)",
            f"INSERT INTO things VALUES ('f', 4, ({LARGE}))",
        )
        assert shown(seen) == [("created", "f", 4)]
        execute(postgres_dsn, statement)
        with pytest.raises(EventRejected, match="REPLICA IDENTITY FULL") as raised:
            await opened.events()
        assert raised.value.message.startswith("public.things id=")


async def test_identities_that_differ(postgres_dsn: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one")
    (line,) = await mismatches(postgres_dsn, mapping)
    assert line == (
        "public.things: replica identity is FULL, and that of its partitions public.three, public.two is not; "
        "run: ALTER TABLE public.three REPLICA IDENTITY FULL; ALTER TABLE public.two REPLICA IDENTITY FULL"
    )
    execute(postgres_dsn, *line.partition("run: ")[2].split("; "))
    assert await mismatches(postgres_dsn, mapping) == []


async def test_a_root_that_is_narrower(postgres_dsn: str, tmp_path: Path, mapping: Mapping) -> None:
    made(postgres_dsn)
    lines = await mismatches(postgres_dsn, mapping)
    assert [line.partition(" is DEFAULT")[0] for line in lines] == [
        "public.things: replica identity",
        *(
            f"public.things: replica identity of its partition public.{name}"
            for name in ("one", "three", "two")
        ),
    ]
    execute(postgres_dsn, "CREATE TABLE small (id int PRIMARY KEY, n int) PARTITION BY HASH (id)")
    execute(postgres_dsn, "CREATE TABLE s PARTITION OF small FOR VALUES WITH (modulus 1, remainder 0)")
    path = tmp_path / "small.toml"
    path.write_text(
        'modules = ["tests.fixtures.type_messages"]\n[tables."public.small"]\nkind = "small"\n'
        'message = "zephyr.tests.types.Thing"\nkey = "id"\ncolumns = { n = "number" }\n'
    )
    assert await mismatches(postgres_dsn, load_mapping(path)) == []


async def test_partitions_that_are_not_in_the_wal(postgres_dsn: str, tmp_path: Path) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    execute(
        postgres_dsn,
        "CREATE UNLOGGED TABLE loose (LIKE things INCLUDING ALL)",
        "ALTER TABLE loose REPLICA IDENTITY FULL",
        "ALTER TABLE things ATTACH PARTITION loose FOR VALUES IN (9)",
        "CREATE TABLE things_1 PARTITION OF things FOR VALUES IN (8)",
        "ALTER TABLE things_1 REPLICA IDENTITY FULL",
        "ALTER TABLE things_1 ADD UNIQUE (id)",
    )
    lines = await mismatches(postgres_dsn, things(tmp_path, COLUMNS, 'text = "text"'))
    assert lines == [
        "public.things: its partition public.loose is an unlogged or temporary table, whose changes are not in "
        "the WAL; run: ALTER TABLE public.things DETACH PARTITION public.loose",
        "public.things_1: its rows are sent as those of public.things, which it is a partition of; "
        "take one of the two out of the mapping",
    ]


async def test_the_key_is_unique_in_each_partition(postgres_dsn: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    execute(postgres_dsn, "ALTER TABLE things DROP CONSTRAINT things_pkey")
    lines: list[Any] = await mismatches(postgres_dsn, mapping)
    assert any("neither the primary key nor unique" in line for line in lines)


async def test_the_copy_reads_every_partition(postgres_dsn: str, mapping: Mapping) -> None:
    made(postgres_dsn, "things", "one", "two", "three")
    execute(postgres_dsn, "INSERT INTO things VALUES ('a', 1, 't'), ('b', 2, 't'), ('c', 3, NULL)")
    connection = await chunks.connect(postgres_dsn)
    try:
        table = (await check_fit(connection, mapping)).tables["public.things"]
        await chunks.hold_still(connection, [table])
        measured = await chunks.measure(connection, table)
        rows = [row for part in chunks.parts_of(measured) async for row in chunks.read_rows(connection, part)]
    finally:
        await connection.close()
    assert [column.name for column in measured.relation.columns] == ["id", "text", "region"]
    assert sorted(rows) == [("a", "t", "1"), ("b", "t", "2"), ("c", None, "3")]
