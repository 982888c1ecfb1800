"""The decoder against a writer of the same format: what was written is what is read.

Frames come whole out of libpq, so what can be split is their sequence: however they are
grouped into reads, the same messages must reach the stream. And bytes that were cut, or
changed, are a ``ProtocolError``, never another exception.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.change import Begin, Column, Commit, Operation, Relation, RowChange, Truncate, Unchanged, Value
from bridge.errors import ProtocolError
from bridge.pgoutput import Decoder, parse_frame
from tests.unit.bridge.wal_bytes import keepalive, message, xlog_data

# What Postgres' text holds: any character but NUL and halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
LONG = st.builds(lambda part, times: part * times, TEXT, st.sampled_from((1, 1000, 20_000)))
# Text forms of every mapped type, as the server writes them.
FORMS = st.sampled_from(
    (
        "infinity",
        "-infinity",
        "NaN",
        "t",
        "f",
        "-9223372036854775808",
        "2026-01-02 03:04:05.123456+00",
        "\\xdead",
    )
)
VALUES: st.SearchStrategy[Value] = st.none() | TEXT | LONG | FORMS | st.just(Unchanged.TOAST)
NAMES = TEXT.filter(bool)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**62), 2**62)

COLUMNS = st.builds(Column, NAMES, U32, st.integers(-(2**31), 2**31 - 1), st.booleans())
RELATIONS = st.builds(
    Relation, U32, NAMES, NAMES, st.sampled_from("dnfi"), st.lists(COLUMNS, max_size=6).map(tuple)
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Relation, RowChange]:
    relation = draw(RELATIONS)
    operation = draw(st.sampled_from(Operation))
    rows = st.tuples(*(VALUES for _ in relation.columns))
    old = None if operation is Operation.INSERT else draw(rows)
    if operation is Operation.UPDATE and draw(st.booleans()):
        old = None
    new = None if operation is Operation.DELETE else draw(rows)
    return relation, RowChange(operation, relation, old, new)


@given(changes())
def test_a_row_is_read_as_it_was_written(given_change: tuple[Relation, RowChange]) -> None:
    relation, change = given_change
    decoder = Decoder()
    assert decoder.decode(message(relation)) == relation
    assert decoder.decode(message(change)) == change


@given(U64, U64, TIMES, U32)
def test_ends_of_transactions(lsn: int, end_lsn: int, time_us: int, xid: int) -> None:
    for expected in (Begin(lsn, time_us, xid), Commit(lsn, end_lsn, time_us)):
        assert Decoder().decode(message(expected)) == expected


@given(st.lists(RELATIONS, max_size=5, unique_by=lambda relation: relation.oid))
def test_truncate(relations: list[Relation]) -> None:
    decoder = Decoder()
    for relation in relations:
        decoder.decode(message(relation))
    assert decoder.decode(message(Truncate(tuple(relations)))) == Truncate(tuple(relations))


@given(changes(), st.data())
def test_cut_anywhere(given_change: tuple[Relation, RowChange], data: st.DataObject) -> None:
    relation, change = given_change
    decoder = Decoder()
    decoder.decode(message(relation))
    for whole in (message(change), message(relation)):
        end = data.draw(st.integers(0, len(whole) - 1))
        with pytest.raises(ProtocolError):
            decoder.decode(whole[:end])


@given(changes(), st.data())
def test_any_damage_is_a_protocol_error_or_another_message(
    given_change: tuple[Relation, RowChange], data: st.DataObject
) -> None:
    relation, change = given_change
    decoder = Decoder()
    decoder.decode(message(relation))
    damaged = bytearray(message(change))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _reads_or_refuses(decoder, bytes(damaged))


@given(
    st.binary(max_size=200),
    st.sampled_from((b"", b"B", b"C", b"R", b"I", b"U", b"D", b"T", b"Y", b"w", b"k")),
)
def test_any_bytes(rest: bytes, kind: bytes) -> None:
    _reads_or_refuses(Decoder(), kind + rest)
    try:
        parse_frame(kind + rest)
    except ProtocolError as exc:
        assert exc.message  # noqa: PT017 - both ends are fine


@given(U64, TIMES, st.booleans(), st.binary(max_size=50))
def test_frames(lsn: int, time_us: int, reply: bool, payload: bytes) -> None:
    data = parse_frame(xlog_data(payload, lsn, time_us))
    assert (data.wal_end, data.server_time_us) == (lsn, time_us)
    alive = parse_frame(keepalive(lsn, time_us, reply))
    assert (alive.wal_end, alive.server_time_us) == (lsn, time_us)


def _reads_or_refuses(decoder: Decoder, data: bytes) -> None:
    try:
        decoder.decode(data)
    except ProtocolError as exc:
        assert exc.message  # noqa: PT017 - both ends are fine
