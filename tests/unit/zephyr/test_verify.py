"""The oracle finds what it is there to find, and the proxy's commands are whole."""

from __future__ import annotations

import json
import struct

import pytest

from protos.events.v1.event_pb2 import Event
from zephyr.verify.frames import ClientFrames
from zephyr.verify.stored import Stored
from zephyr.verify.truth import Expected, Truth, digest_of_row
from zephyr.verify.verdict import Count
from zephyr.verify.wal import Change, Emitted, Transaction, Wal

NOTE = {"id": "n", "workspace_id": "w", "title": "t", "body": "b", "version": "1", "metadata": "{}"}


def stored(expected: Expected, **other: object) -> Stored:
    event = Event()
    if expected.verb != "truncated":
        event.note.id, event.note.title, event.note.body = "n", "t", "b"
        event.note.version = expected.version
    fields: dict[str, object] = {
        "subject": expected.subject,
        "verb": expected.verb,
        "lsn": expected.lsn,
        "index": expected.index,
        "count": expected.count,
        "payload": event.SerializeToString(),
    }
    return Stored(**{**fields, **other})  # type: ignore[arg-type]


@pytest.fixture
def expected() -> list[Expected]:
    """Three transactions: an insert, a move, which makes two messages, and a delete."""
    truth = Truth()
    moved = {**NOTE, "workspace_id": "v", "version": "2"}
    changes: list[list[Change | Emitted]] = [
        [Change("notes", None, NOTE)],
        [Change("notes", NOTE, moved)],
        [Change("notes", moved, None)],
    ]
    for lsn, each in enumerate(changes, 16):
        truth.add(Transaction(lsn, each))
    return truth.expected


def count(expected: list[Expected], found: list[Stored]) -> tuple[int, int, int, int]:
    counted = Count(expected)
    for one in found:
        counted.take(one)
    counted.end()
    verdict = counted.verdict
    return verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.unexpected


def test_a_move_takes_two_indexes(expected: list[Expected]) -> None:
    assert [(one.lsn, one.index, one.count, one.verb) for one in expected] == [
        (16, 0, 1, "created"),
        (17, 0, 0, "left"),
        (17, 1, 2, "entered"),
        (18, 0, 1, "deleted"),
    ]
    assert [one.subject.split(".")[2] for one in expected] == ["w", "w", "v", "v"]
    assert expected[0].digest == digest_of_row(NOTE)


def test_what_is_whole_holds(expected: list[Expected]) -> None:
    assert count(expected, [stored(one) for one in expected]) == (0, 0, 0, 0)


def test_each_error_is_counted(expected: list[Expected]) -> None:
    whole = [stored(one) for one in expected]
    assert count(expected, whole[:1] + whole[2:]) == (1, 0, 0, 0)
    assert count(expected, whole[:2] + whole[1:]) == (0, 1, 0, 0)
    assert count(expected, [*whole, whole[0]]) == (0, 1, 0, 0)
    assert count(expected, [whole[0], whole[3], whole[1], whole[2]]) == (0, 0, 2, 0)
    assert count(expected, [*whole, stored(expected[3], lsn=99)]) == (0, 0, 0, 1)
    for other in (
        {"verb": "updated"},
        {"subject": "zephyr.0.u.note.n.row"},
        {"count": 7},
        {"payload": b""},
    ):
        assert count(expected, [stored(expected[0], **other), *whole[1:]]) == (0, 0, 0, 1), other


def test_a_slot_that_fell_back_tells_nothing_twice(expected: list[Expected]) -> None:
    truth = Truth()
    for lsn in (16, 17, 16, 17, 18):
        truth.add(Transaction(lsn, [Change("notes", None, NOTE)]))
    assert [one.lsn for one in truth.expected] == [16, 17, 18]


def test_the_decoder_fills_in_what_an_update_left_alone() -> None:
    def text(value: str) -> bytes:
        return b"t" + struct.pack(">I", len(value)) + value.encode()

    relation = b"R" + struct.pack(">I", 7) + b"public\0notes\0f" + struct.pack(">H", 2)
    relation += b"".join(b"\1" + name + b"\0" + struct.pack(">Ii", 25, -1) for name in (b"id", b"body"))
    update = b"U" + struct.pack(">I", 7) + b"O" + struct.pack(">H", 2) + text("a") + text("large")
    update += b"N" + struct.pack(">H", 2) + text("a") + b"u"
    wal = Wal()
    assert wal.take(b"B" + struct.pack(">QqI", 16, 0, 1)) is None
    assert wal.take(relation) is None
    assert wal.take(update) is None
    row = {"id": "a", "body": "large"}
    assert wal.take(b"C\0" + struct.pack(">QQq", 16, 24, 0)) == Transaction(16, [Change("notes", row, row)])


def test_what_a_transaction_emits_is_counted(expected: list[Expected]) -> None:
    said = {"workspaceId": "w", "kind": "note", "entityId": "n", "verb": "shared", "note": {"title": "t"}}
    changes: list[Change | Emitted] = [
        Change("notes", None, NOTE),
        Emitted("zephyr.context", b'{"actor": "Ada"}'),
        Emitted("zephyr.event", json.dumps(said).encode()),
        Emitted("zephyr.event", b"{"),
    ]
    truth = Truth()
    truth.add(Transaction(16, changes))
    found = [(one.index, one.count, one.subject, one.verb, one.actor) for one in truth.expected]
    assert found == [
        (0, 0, "zephyr.0.w.note.n.row", "created", ""),
        (1, 0, "zephyr.0.w.note.n.event", "shared", "Ada"),
        (2, 3, "zephyr.0._._._.event", "rejected", "Ada"),
    ]
    assert truth.expected[1].digest == digest_of_row({"title": "t"})


def test_the_decoder_takes_logical_messages() -> None:
    def emitted(prefix: bytes, flags: int) -> bytes:
        return b"M" + struct.pack(">BQ", flags, 5) + prefix + b"\0" + struct.pack(">I", 2) + b"{}"

    wal = Wal()
    wal.take(b"B" + struct.pack(">QqI", 16, 0, 1))
    for prefix, flags in (
        (b"zephyr.event", 1),
        (b"zephyr.event", 0),
        (b"other", 1),
        (b"zephyr.heartbeat", 1),
    ):
        assert wal.take(emitted(prefix, flags)) is None
    done = wal.take(b"C\0" + struct.pack(">QQq", 16, 24, 0))
    assert done == Transaction(16, [Emitted("zephyr.event", b"{}")])


def test_commands_come_whole_however_they_are_cut() -> None:
    row = b"HPUB zephyr.0.w.note.n.row _INBOX.1 4 9\r\nhead\r\nbod\r\n"
    sent = b'CONNECT {"verbose":false}\r\nPING\r\n' + row + b"PUB a.b 0\r\n\r\n"
    for size in (1, 7, len(sent)):
        frames = ClientFrames()
        found = [each for at in range(0, len(sent), size) for each in frames.feed(sent[at : at + size])]
        assert b"".join(frame for frame, _ in found) == sent
        assert [(frame, True) for frame, is_row in found if is_row] == [(row, True)]
        assert len(found) == 4
