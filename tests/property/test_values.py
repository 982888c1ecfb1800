"""Values of every mapped type, made at random, arrive as they were: through our own text
forms, and through those of a real server."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge import values
from bridge.change import Begin, Column, Operation, Relation, RowChange, Value
from bridge.encode import Encoder
from bridge.fit import FittedColumn, FittedMapping, FittedTable
from bridge.mapping import load_mapping
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note

# What Postgres' text holds: any character but NUL and halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MAPS = st.dictionaries(TEXT, TEXT, max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
INT64 = st.integers(values.INT64_MIN, values.INT64_MAX)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 400 Gregorian years have the same number of days, wherever they begin.
CYCLE_YEARS, CYCLE_US = 400, 146_097 * 86_400 * 1_000_000

# From 4714-11-24 BC to 294276-12-31, as days and microseconds from 1970.
SERVER_TIMES = st.tuples(st.integers(-2_440_588, 106_751_983), st.integers(0, 86_400_000_000 - 1))


@given(
    st.datetimes(datetime(401, 1, 1), datetime(9600, 1, 1)),  # noqa: DTZ001 - moved and then zoned below
    st.integers(-12, 700),
    st.integers(-15 * 3600 + 1, 15 * 3600 - 1),
)
@example(datetime(2000, 2, 29, 23, 59, 59, 999_999), 0, 0)  # noqa: DTZ001
def test_times_of_any_year_and_zone(moment: datetime, cycles: int, offset_s: int) -> None:
    year = moment.year + cycles * CYCLE_YEARS
    shown = f"{year:04}" if year > 0 else f"{1 - year:04}"
    hours, rest = divmod(abs(offset_s), 3600)
    minutes, seconds = divmod(rest, 60)
    offset = f"{'-' if offset_s < 0 else '+'}{hours:02}"
    if minutes or seconds:
        offset += f":{minutes:02}"
    if seconds:
        offset += f":{seconds:02}"
    fraction = f"{moment.microsecond:06}".rstrip("0")
    text = f"{shown}-{moment:%m-%d %H:%M:%S}{'.' if fraction else ''}{fraction}{offset}{'' if year > 0 else ' BC'}"
    wanted = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    wanted += cycles * CYCLE_US - offset_s * 1_000_000
    assert values.unix_us(text) == wanted


@given(
    MAPS | st.dictionaries(TEXT, JSON_VALUES, max_size=6), st.sampled_from(("", " ", "\n\t")), st.booleans()
)
def test_json_objects(members: dict[str, Any], space: str, escaped: bool) -> None:
    shown = {
        json.dumps(key, ensure_ascii=escaped): json.dumps(item, ensure_ascii=escaped)
        for key, item in members.items()
    }
    body = f",{space}".join(f"{key}{space}:{space}{item}{space}" for key, item in shown.items())
    assert values.text_map(f"{space}{{{space}{body}}}{space}") == {
        key: item if isinstance(item, str) else json.dumps(item, ensure_ascii=escaped)
        for key, item in members.items()
    }


NOTE_TYPES = {
    "workspace_id": values.TEXT,
    "version": values.INT8,
    "created_at": values.TIMESTAMPTZ,
    "updated_at": values.TIMESTAMPTZ,
    "metadata": values.JSONB,
}


def note_encoder() -> tuple[Encoder, Relation]:
    table = load_mapping().tables["public.notes"]
    types = {name: NOTE_TYPES.get(name, values.TEXT) for name in table.used_columns}
    columns = {name: FittedColumn(name, oid, oid, "?") for name, oid in types.items()}
    encoder = Encoder(FittedMapping({table.name: FittedTable(table, 1, columns)}), "1", "d", "e", 1 << 30)
    described = tuple(Column(name, oid, -1, True) for name, oid in types.items())
    return encoder, Relation(1, "public", "notes", "f", described)


ENCODER, NOTES = note_encoder()


@given(
    author=st.none() | TEXT,
    title=st.none() | TEXT,
    body=st.none() | TEXT,
    version=st.none() | INT64,
    infinite=st.sampled_from((None, "infinity", "-infinity")),
    metadata=st.none() | MAPS,
)
@example(
    author="", title="\x01𝄞\u202e", body="é" * 1_000_000, version=0, infinite="infinity", metadata={"": ""}
)
def test_a_row_through_the_encoder(
    author: str | None,
    title: str | None,
    body: str | None,
    version: int | None,
    infinite: str | None,
    metadata: dict[str, str] | None,
) -> None:
    given_values: dict[str, Value] = {
        "id": "id-1",
        "workspace_id": "w_1",
        "author_id": author,
        "title": title,
        "body": body,
        "version": None if version is None else str(version),
        "created_at": infinite,
        "updated_at": "2000-01-01 00:00:00+00",
        "metadata": None if metadata is None else orjson.dumps(metadata).decode(),
    }
    row = tuple(given_values[column.name] for column in NOTES.columns)
    (draft,) = ENCODER.encode(RowChange(Operation.INSERT, NOTES, None, row))
    event = Event.FromString(draft.finish(Begin(1, 2, 3), 0, 1).payload)
    bounds = {None: 0, "infinity": values.INT64_MAX, "-infinity": values.INT64_MIN}
    assert event.note == Note(
        id="id-1",
        workspace_id="w_1",
        author_id=author or "",
        title=title or "",
        body=body or "",
        version=version or 0,
        created_at=bounds[infinite],
        updated_at=946_684_800_000_000,
        metadata=metadata or {},
    )


@pytest.fixture
def server(postgres_dsn: str) -> Any:
    """A session with the text formats that the bridge pins."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for statement in ("SET timezone = 'UTC'", "SET datestyle = 'ISO'", "SET extra_float_digits = 3"):
            connection.execute(statement.encode())
        yield connection


def on_server(examples: int = 30) -> settings:
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


# The last three had offsets of odd seconds before they had time zones.
ZONES = ("UTC", "Pacific/Kiritimati", "Asia/Kolkata", "America/St_Johns", "Europe/Amsterdam")


def test_times_as_the_server_writes_them(server: psycopg.Connection[Any]) -> None:
    statement = (
        "SELECT t::text, trunc(extract(epoch FROM t) * 1000000)::numeric::text FROM ("
        " SELECT '1970-01-01 00:00:00+00'::timestamptz + d * interval '24 hours'"
        " + (u || ' microseconds')::interval AS t"
        " FROM unnest(%s::int[], %s::bigint[]) AS given (d, u)) AS times"
    )

    @on_server()
    @given(st.lists(SERVER_TIMES, min_size=50, max_size=100), st.sampled_from(ZONES))
    def check(times: list[tuple[int, int]], zone: str) -> None:
        server.execute("SELECT set_config('timezone', %s, false)", (zone,))
        written = server.execute(
            statement.encode(), ([d for d, _ in times], [u for _, u in times])
        ).fetchall()
        for (day, us), (text, epoch_us) in zip(times, written, strict=True):
            assert int(epoch_us) == day * 86_400_000_000 + us
            if int(epoch_us) < values.INT64_MAX:
                assert values.unix_us(text) == int(epoch_us), text
            else:
                with pytest.raises(ValueError, match="past the greatest"):
                    values.unix_us(text)

    check()


def test_other_types_as_the_server_writes_them(server: psycopg.Connection[Any]) -> None:
    statement = (
        "SELECT %s::text, %s::jsonb::text, %s::json::text, %s::float8::text, %s::float4::text,"
        " encode(%s::bytea, 'hex'), %s::bytea::text, %s::int8::text, %s::bool::text"
    )
    finite = st.floats(allow_subnormal=True)

    @on_server(100)
    @given(TEXT, MAPS, finite, st.floats(width=32), st.binary(), INT64, st.booleans())
    def check(
        text: str, members: dict[str, str], double: float, real: float, data: bytes, number: int, truth: bool
    ) -> None:
        shown = orjson.dumps(members).decode()
        cursor = server.execute(
            statement.encode(), (text, shown, shown, double, real, data, data, number, truth)
        )
        row = cursor.fetchone()
        assert row is not None
        assert row[0] == text
        assert values.text_map(row[1]) == members
        assert values.text_map(row[2]) == members
        assert same(float(row[3]), double)
        assert same(struct.unpack("f", struct.pack("f", float(row[4])))[0], real)
        assert values.binary(row[6]) == data == bytes.fromhex(row[5])
        assert int(row[7]) == number
        assert values.boolean(row[8][0]) is truth  # the WAL has the output function's one letter

    check()


def test_jsonb_as_the_server_writes_it(server: psycopg.Connection[Any]) -> None:
    statement = "SELECT key, value::text, jsonb_typeof(value) FROM jsonb_each(%s::jsonb)"

    @on_server(100)
    @given(st.dictionaries(TEXT, JSON_VALUES, max_size=6))
    def check(members: dict[str, Any]) -> None:
        shown = json.dumps(members)
        row = server.execute("SELECT %s::jsonb::text", (shown,)).fetchone()
        assert row is not None
        wanted = {
            key: json.loads(text) if kind == "string" else text
            for key, text, kind in server.execute(statement.encode(), (shown,)).fetchall()
        }
        assert values.text_map(row[0]) == wanted

    check()


def same(left: float, right: float) -> bool:
    return (math.isnan(left) and math.isnan(right)) or left == right
