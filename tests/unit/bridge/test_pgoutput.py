"""The decoder on bytes made by hand, whole and damaged."""

from __future__ import annotations

import pytest

from bridge.change import (
    Begin,
    Column,
    Commit,
    LogicalMessage,
    Message,
    Operation,
    Relation,
    RowChange,
    Truncate,
    Unchanged,
)
from bridge.errors import ProtocolError
from bridge.pgoutput import Decoder, Keepalive, XLogData, parse_frame, standby_status
from tests.unit.bridge.wal_bytes import keepalive, message, xlog_data

NOTES = Relation(
    16400, "public", "notes", "f", (Column("id", 2950, -1, True), Column("título", 25, 104, False))
)
KEYED = Relation(16401, "app", "keyed", "d", (Column("id", 20, -1, True), Column("body", 25, -1, False)))

MESSAGES: list[Message] = [
    Begin(0x16B3748, 1_700_000_000_000_001, 4_294_967_295),
    Commit(0x16B3748, 0x16B3778, 1_700_000_000_000_001),
    RowChange(Operation.INSERT, NOTES, None, ("1", "é𝄞")),
    RowChange(Operation.INSERT, NOTES, None, ("", None)),
    RowChange(Operation.UPDATE, NOTES, ("1", "a"), ("1", Unchanged.TOAST)),
    RowChange(Operation.UPDATE, KEYED, ("1", None), ("2", "b")),
    RowChange(Operation.UPDATE, KEYED, None, ("1", "b")),
    RowChange(Operation.DELETE, NOTES, ("1", "a"), None),
    RowChange(Operation.DELETE, KEYED, ("1", None), None),
    Truncate((NOTES, KEYED)),
    Truncate((NOTES,)),
    NOTES,
    KEYED,
    Relation(1, "pg_catalog", "t", "n", ()),
    LogicalMessage("zephyr.heartbeat", b"1", 0x16B3748, True),
    LogicalMessage("zephyr.é", b"\0N\xff", 1, False),
    LogicalMessage("zephyr.", b"", 1, False),
]


def decoder() -> Decoder:
    made = Decoder()
    for relation in (NOTES, KEYED):
        made.decode(message(relation))
    return made


@pytest.mark.parametrize("expected", MESSAGES, ids=lambda m: type(m).__name__)
def test_each_kind(expected: Message) -> None:
    assert decoder().decode(message(expected)) == expected


def test_bytes_as_in_the_documentation() -> None:
    begin = bytes.fromhex("42 00000000016b3748 0000000000000000 00000007")
    assert Decoder().decode(begin) == Begin(0x16B3748, 946_684_800_000_000, 7)
    commit = bytes.fromhex("43 00 0000000000000010 0000000000000020 ffffffffffffffff")
    assert Decoder().decode(commit) == Commit(0x10, 0x20, 946_684_799_999_999)


@pytest.mark.parametrize("expected", MESSAGES, ids=lambda m: type(m).__name__)
def test_cut_at_any_byte_or_too_long(expected: Message) -> None:
    whole = message(expected)
    for end in range(len(whole)):
        with pytest.raises(ProtocolError):
            decoder().decode(whole[:end])
    for surplus in (b"\0", b"N", b"\0" * 100):
        with pytest.raises(ProtocolError):
            decoder().decode(whole + surplus)


@pytest.mark.parametrize("kind", [b"S", b"E", b"c", b"A", b"P", b"\0", b"\xff", b"w"])
def test_kinds_that_were_not_asked_for(kind: bytes) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        decoder().decode(kind + bytes(40))


@pytest.mark.parametrize("kind", [b"Y", b"O"])
def test_kinds_that_concern_nobody(kind: bytes) -> None:
    assert decoder().decode(kind + bytes(12)) is None


@pytest.mark.parametrize("prefix", ["", "zephyr", "other.", "Zephyr.x"])
def test_logical_messages_of_others(prefix: str) -> None:
    assert decoder().decode(message(LogicalMessage(prefix, b"zephyr.", 1, True))) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"I" + (99).to_bytes(4, "big") + b"N\0\0", "never described"),
        (b"T" + (1).to_bytes(4, "big") + b"\0" + (99).to_bytes(4, "big"), "never described"),
        (b"I" + (16400).to_bytes(4, "big") + b"O\0\2nn", "tuple of kind"),
        (b"U" + (16400).to_bytes(4, "big") + b"O\0\2nnO\0\2nn", "tuple of kind"),
        (b"D" + (16400).to_bytes(4, "big") + b"N\0\2nn", "tuple of kind"),
        (b"I" + (16400).to_bytes(4, "big") + b"N\0\1n", "has 1 columns"),
        (b"I" + (16400).to_bytes(4, "big") + b"N\0\3nnn", "has 3 columns"),
        (b"I" + (16400).to_bytes(4, "big") + b"N\0\2nb", "unknown kind"),
        (b"I" + (16400).to_bytes(4, "big") + b"N\0\2nt\xff\xff\xff\xffx", "a column ends at"),
        (b"I" + (16400).to_bytes(4, "big") + b"N\0\2nt\0\0\0\1\xff", "malformed"),
        (b"T\xff\xff\xff\xff\0" + (16400).to_bytes(4, "big"), "malformed"),
        (b"R\0\0\0\1no end", "malformed"),
        (b"", "malformed"),
    ],
)
def test_malformed(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decoder().decode(data)


def test_a_relation_sent_anew_holds_for_the_rows_after_it() -> None:
    made = decoder()
    changed = Relation(16400, "public", "notes", "f", (Column("id", 2950, -1, True),))
    before = made.decode(message(RowChange(Operation.INSERT, NOTES, None, ("1", "a"))))
    made.decode(message(changed))
    after = made.decode(message(RowChange(Operation.INSERT, changed, None, ("1",))))
    assert isinstance(before, RowChange)
    assert isinstance(after, RowChange)
    assert (before.relation, after.relation) == (NOTES, changed)
    with pytest.raises(ProtocolError):
        made.decode(message(RowChange(Operation.INSERT, NOTES, None, ("1", "a"))))


def test_frames() -> None:
    assert parse_frame(xlog_data(b"Bytes", 77, 5)) == XLogData(77, 5, b"Bytes")
    assert parse_frame(xlog_data(b"", 77, 5)) == XLogData(77, 5, b"")
    assert parse_frame(keepalive(2**64 - 1, 6, True)) == Keepalive(2**64 - 1, 6, True)
    for whole in (xlog_data(b"", 1), keepalive(1)):
        for end in range(len(whole)):
            with pytest.raises(ProtocolError):
                parse_frame(whole[:end])
    for wrong in (keepalive(1) + b"\0", b"p" + bytes(40), b"r" + bytes(33)):
        with pytest.raises(ProtocolError):
            parse_frame(wrong)


def test_the_feedback_confirms_one_position_three_times() -> None:
    frame = standby_status(0x16B3748, 946_684_800_000_002, True)
    assert frame == b"r" + bytes.fromhex("00000000016b3748") * 3 + bytes.fromhex("0000000000000002") + b"\1"
    assert standby_status(0, 946_684_800_000_000)[-1] == 0
