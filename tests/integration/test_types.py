"""Every type of Postgres, from a real server's WAL to the event's field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.errors import EventRejected, MappingMismatch
from bridge.fit import check_fit
from tests.fixtures.type_messages import Address, Thing
from tests.fixtures.wal_events import tap, things
from tests.integration.bridge_command import execute

TYPES = (
    "CREATE TYPE mood AS ENUM ('so so', 'VeryGood', 'bad')",
    "CREATE DOMAIN label AS text CHECK (VALUE <> '')",
    "CREATE DOMAIN labels AS label[]",
    "CREATE TYPE address AS (street label, number int, tags labels, mood mood, since timestamptz)",
    "CREATE DOMAIN home AS address",
    "CREATE TABLE row_type (street text, gone int, number int)",
    "ALTER TABLE row_type DROP COLUMN gone",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
)
US = 1767323045123456
ADDRESS = Address(street='a "b", \\(c)', number=-1, tags=["x y", "z", "NULL"], mood=1, since=US)
ADDRESS_SQL = """ROW('a "b", \\(c)', -1, ARRAY['x y', 'z', 'NULL'], 'so so', '2026-01-02 03:04:05.123456+00')::address"""


def made(dsn: str, *columns: str) -> list[str]:
    """The tables things, things_1 and so on, each with its columns beside ``id``."""
    tables = ["things", *(f"things_{number}" for number in range(1, len(columns)))]
    execute(dsn, *TYPES)
    for table, given in zip(tables, columns, strict=True):
        execute(
            dsn,
            f"CREATE TABLE {table} (id text PRIMARY KEY, {given})",
            f"ALTER TABLE {table} REPLICA IDENTITY FULL",
        )
    return tables


# The type, a value in SQL, and the text as an event has it.
TEXTS = [
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("numeric(40, 10)", "12345678901234567890.0123456789", "12345678901234567890.0123456789"),
    ("money", "'-1234.50'", "-$1,234.50"),
    ("char(4)", "'ab'", "ab  "),
    ("varchar(5)", "'é'", "é"),
    ("name", "'n'", "n"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", "'infinity'", "infinity"),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
    ("time", "'24:00'", "24:00:00"),
    ("timetz", "'03:04:05.5-05:30'", "03:04:05.5-05:30"),
    ("interval", "'1 year -2 days 03:04:05.5'", "1 year -2 days +03:04:05.5"),
    ("timestamptz", "'2026-01-02 03:04:05+02'", "2026-01-02 01:04:05+00"),
    ("json", "'{\"a\" : 1.50}'", '{"a" : 1.50}'),
    ("jsonb", "'[1, null]'", "[1, null]"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr", "'08-00-2b-01-02-03'", "08:00:2b:01:02:03"),
    ("macaddr8", "'08-00-2b-01-02-03-04-05'", "08:00:2b:01:02:03:04:05"),
    ("bit(4)", "B'0101'", "0101"),
    ("varbit", "B'01'", "01"),
    ("tsvector", "'a:1 b:2A'", "'a':1 'b':2A"),
    ("tsquery", "'a & b'", "'a' & 'b'"),
    ("point", "'(1,2.5)'", "(1,2.5)"),
    ("box", "'((0,0),(1,1))'", "(1,1),(0,0)"),
    ("path", "'[(0,0),(1,1)]'", "[(0,0),(1,1)]"),
    ("pg_lsn", "'1/A'", "1/A"),
    ("jsonpath", "'$.a'", '$."a"'),
    ("int4range", "'[1,5]'", "[1,6)"),
    ("tstzrange", "'[2026-01-01 00:00+00,)'", '["2026-01-01 00:00:00+00",)'),
    ("int4multirange", "'{[1,2], [5,6]}'", "{[1,3),[5,7)}"),
    ("int[]", "'{1,NULL,3}'", "{1,NULL,3}"),
    ("text[]", "'[2:3]={a,b c}'", '[2:3]={a,"b c"}'),
    ("mood", "'so so'", "so so"),
    ("label", "'l'", "l"),
    ("address", ADDRESS_SQL, '("a ""b"", \\\\(c)",-1,"{""x y"",z,""NULL""}","so so","2026-01-02 03:04:05.123456+00")'),
]  # fmt: skip


async def test_types_that_are_text(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    tables = made(postgres_dsn, *(f"c {kind}" for kind, *_ in TEXTS))
    async with tap(postgres_dsn, slot_name, things(tmp_path, *['c = "text"'] * len(TEXTS))) as opened:
        for table, (kind, sql, _) in zip(tables, TEXTS, strict=True):
            execute(postgres_dsn, f"INSERT INTO {table} VALUES ('r', {sql}::{kind})")
        seen = await opened.events()
        assert [each.thing for each in seen] == [Thing(text=text) for *_, text in TEXTS]


SHAPES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("text[]", "ARRAY['a', '', 'NULL', 'x y', E'q\"\\\\,{}\\n']", "texts",
     {"texts": ["a", "", "NULL", "x y", 'q"\\,{}\n']}),
    ("varchar(9)[]", "'{}'", "texts", {}),
    ("labels", "'{a,b}'", "texts", {"texts": ["a", "b"]}),
    ("label[]", "'{a,b}'", "texts", {"texts": ["a", "b"]}),
    ("numeric[]", "'{1.50,NaN}'", "texts", {"texts": ["1.50", "NaN"]}),
    ("box[]", "'{(1,1),(0,0);(3,3),(2,2)}'", "texts", {"texts": ["(1,1),(0,0)", "(3,3),(2,2)"]}),
    ("int[]", "'[0:2]={1,-2,3}'", "numbers", {"numbers": [1, -2, 3]}),
    ("bigint[]", "'{9223372036854775807}'", "numbers", {"numbers": [2**63 - 1]}),
    ("timestamptz[]", "ARRAY['2026-01-02 03:04:05.123456+00', 'infinity']::timestamptz[]", "numbers",
     {"numbers": [US, 2**63 - 1]}),
    ("timestamptz[]", "ARRAY['1970-01-01 00:00:01+00']::timestamptz[]", "times", {"times": [Timestamp(seconds=1)]}),
    ("float8[]", "'{1.5,-Infinity}'", "doubles", {"doubles": [1.5, float("-inf")]}),
    ("bool[]", "'{t,f}'", "truths", {"truths": [True, False]}),
    ("bytea[]", "ARRAY['\\x00ff'::bytea, '']", "blobs", {"blobs": [b"\0\xff", b""]}),
    ("mood", "'VeryGood'", "mood", {"mood": 2}),
    ("mood[]", "'{bad,so so}'", "moods", {"moods": [3, 1]}),
    ("address", ADDRESS_SQL, "address", {"address": ADDRESS}),
    ("home", "ROW(NULL, NULL, NULL, NULL, NULL)", "address", {"address": Address()}),
    ("address[]", f"ARRAY[{ADDRESS_SQL}, ROW('s', NULL, '{{}}', NULL, 'infinity')::address]", "addresses",
     {"addresses": [ADDRESS, Address(street="s", since=2**63 - 1)]}),
    ("home[]", f"ARRAY[{ADDRESS_SQL}]::home[]", "addresses", {"addresses": [ADDRESS]}),
    ("int4range", "'[1,5]'", "value", {"value": {"type_oid": 3904, "type_name": "int4range", "text": "[1,6)"}}),
    ("hstore", "'a=>1, b=>NULL'", "text", {"text": '"a"=>"1", "b"=>NULL'}),
    ("citext", "'Ab'", "text", {"text": "Ab"}),
    ("citext[]", "'{Ab,NULL}'", "text", {"text": "{Ab,NULL}"}),
    ("citext[]", "'{Ab,c d}'", "texts", {"texts": ["Ab", "c d"]}),
    ("row_type", "ROW('s', 7)", "address", {"address": Address(street="s", number=7)}),
    ("point[]", "'{\"(1,2)\"}'", "values", {"values": [{"type_oid": 600, "type_name": "point", "text": "(1,2)"}]}),
]  # fmt: skip


async def test_types_with_a_shape(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    tables = made(postgres_dsn, *(f"c {kind}" for kind, *_ in SHAPES))
    mapping = things(tmp_path, *(f'c = "{field}"' for _, _, field, _ in SHAPES))
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        for table, (_, sql, *_) in zip(tables, SHAPES, strict=True):
            execute(postgres_dsn, f"INSERT INTO {table} VALUES ('r', {sql}), ('n', NULL)")
        seen = await opened.events()
        assert [each.thing for each in seen[::2]] == [Thing(**wanted) for *_, wanted in SHAPES]
        assert [each.thing for each in seen[1::2]] == [Thing()] * len(SHAPES)


@pytest.mark.parametrize(
    ("kind", "sql", "field", "reason"),
    [
        ("int[]", "'{1,NULL}'", "numbers", "c: element 2 is NULL"),
        ("int[]", "'{{1},{2}}'", "numbers", "c: the array has more than one dimension"),
        ("int[]", "'[0:0][2:3]={{1,2}}'", "numbers", "c: the array has more than one dimension"),
        ("address", "ROW('s', 1, '{NULL}', NULL, NULL)", "address", "c: tags: element 1 is NULL"),
        ("timestamptz[]", "'{infinity}'", "times", "c: google.protobuf.Timestamp cannot hold infinity"),
    ],
)
async def test_a_row_that_does_not_fit_is_named(
    postgres_dsn: str, slot_name: str, tmp_path: Path, kind: str, sql: str, field: str, reason: str
) -> None:
    made(postgres_dsn, f"c {kind}")
    async with tap(postgres_dsn, slot_name, things(tmp_path, f'c = "{field}"')) as opened:
        execute(postgres_dsn, f"INSERT INTO things VALUES ('r', {sql})")
        with pytest.raises(EventRejected) as raised:
            await opened.events()
        assert raised.value.message.startswith(f"public.things id=r: {reason}")


async def test_a_type_of_an_extension_with_its_oid(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    made(postgres_dsn, "c hstore")
    async with tap(postgres_dsn, slot_name, things(tmp_path, 'c = "value"')) as opened:
        execute(postgres_dsn, "INSERT INTO things VALUES ('r', 'a=>1')")
        (seen,) = await opened.events()
    with psycopg.connect(postgres_dsn) as connection:
        oid = connection.execute("SELECT 'hstore'::regtype::oid").fetchone()
    assert oid is not None
    wanted = {"type_oid": int(oid[0]), "type_name": "hstore", "text": '"a"=>"1"'}
    assert seen.thing == Thing(value=wanted)


async def test_a_composite_that_was_altered(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    made(postgres_dsn, "c address")
    async with tap(postgres_dsn, slot_name, things(tmp_path, 'c = "address"')) as opened:
        execute(
            postgres_dsn,
            "ALTER TYPE address ADD ATTRIBUTE more int",
            "INSERT INTO things VALUES ('r', ROW('s', 1, NULL, NULL, NULL, 2))",
        )
        with pytest.raises(EventRejected, match="c: the composite has 6 attributes, not the 5 that"):
            await opened.events()


async def test_an_enum_label_that_came_later(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    made(postgres_dsn, "c mood")
    async with tap(postgres_dsn, slot_name, things(tmp_path, 'c = "mood"')) as opened:
        execute(postgres_dsn, "ALTER TYPE mood ADD VALUE 'odd'", "INSERT INTO things VALUES ('r', 'odd')")
        with pytest.raises(EventRejected, match="c: Mood has no value for 'odd'"):
            await opened.events()


@pytest.mark.parametrize(
    ("kind", "field", "line"),
    [
        ("odd", "mood", "odd cannot become zephyr.tests.types.Mood Thing.mood: Mood has no value for 'x'; "
         "give Mood a value for each label"),
        ("twins", "mood", "Mood has the same value for 'so so' and 'so_so'; "),
        ("text", "mood", "text cannot become zephyr.tests.types.Mood Thing.mood; map an enum column"),
        ("odd[]", "moods", "odd[] cannot become repeated zephyr.tests.types.Mood Thing.moods: Mood has no value"),
        ("text", "texts", "text cannot become repeated string Thing.texts; map an array"),
        ("int[]", "texts", "integer[] cannot become repeated string Thing.texts; map a text, varchar or uuid"),
        ("int2vector", "numbers", "int2vector cannot become repeated int64 Thing.numbers; map an array"),
        ("text", "address", "text cannot become zephyr.tests.types.Address Thing.address; map a composite"),
        ("wide", "address", "Address has no field for its attribute more; add the field"),
        ("other", "address", "its attribute number, bigint, cannot become int32 Address.number "
         "(no integer or smallint); change the field"),
    ],
)  # fmt: skip
async def test_a_shape_that_never_fits(
    postgres_dsn: str, tmp_path: Path, kind: str, field: str, line: str
) -> None:
    execute(
        postgres_dsn,
        "CREATE TYPE odd AS ENUM ('x', 'bad')",
        "CREATE TYPE twins AS ENUM ('so so', 'so_so')",
        "CREATE TYPE wide AS (street text, more int)",
        "CREATE TYPE other AS (street text, number bigint)",
    )
    made(postgres_dsn, f"c {kind}")
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        with pytest.raises(MappingMismatch) as raised:
            await check_fit(connection, things(tmp_path, f'c = "{field}"'))
    (found,) = raised.value.mismatches
    assert found.startswith("public.things.c: ")
    assert line in found
