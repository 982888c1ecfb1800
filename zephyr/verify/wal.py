"""A second decoder of pgoutput, for the oracle alone: whole transactions from their messages.

It reads what ``pg_logical_slot_get_binary_changes`` gives (protocol version 1, in text), and
takes every table with REPLICA IDENTITY FULL. Nothing is shared with the bridge's decoder.
Source: PostgreSQL, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Row = Mapping[str, str | None]
"""Values as texts, by the columns' names."""

_UNCHANGED = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One row change. ``old`` is None for an insert, ``new`` for a delete, both for a truncation."""

    table: str
    old: Row | None
    new: Row | None


@dataclass(frozen=True, slots=True)
class Emitted:
    """A transactional logical message; ``prefix`` is ``zephyr.event`` or ``zephyr.context``."""

    prefix: str
    content: bytes


@dataclass(slots=True)
class Transaction:
    """A committed transaction; ``commit_lsn`` is where its commit record begins."""

    commit_lsn: int
    changes: list[Change | Emitted] = field(default_factory=list)


class Wal:
    """Takes message after message; gives a transaction with its commit."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[str, list[str]]] = {}
        self._open = Transaction(0)

    def take(self, message: bytes) -> Transaction | None:
        """The transaction that this message ends, if it does."""
        kind, body = message[:1], message[1:]
        if kind == b"B":
            self._open = Transaction(struct.unpack_from(">Q", body)[0])
        elif kind == b"R":
            self._relation(body)
        elif kind in (b"I", b"U", b"D"):
            self._open.changes.append(self._change(body))
        elif kind == b"T":
            count = struct.unpack_from(">I", body)[0]
            for oid in struct.unpack_from(f">{count}I", body, 5):
                self._open.changes.append(Change(self._tables[oid][0], None, None))
        elif kind == b"M":
            self._message(body)
        elif kind == b"C":
            commit_lsn = struct.unpack_from(">Q", body, 1)[0]
            if commit_lsn != self._open.commit_lsn:
                raise ValueError(f"a commit at {commit_lsn:X} ends what began for {self._open.commit_lsn:X}")
            return self._open
        return None

    def _relation(self, body: bytes) -> None:
        oid = struct.unpack_from(">I", body)[0]
        _, name, rest = body[4:].split(b"\0", 2)
        count = struct.unpack_from(">H", rest, 1)[0]
        columns, rest = [], rest[3:]
        for _ in range(count):
            column, _, after = rest[1:].partition(b"\0")
            columns.append(column.decode())
            rest = after[8:]  # type and its modifier
        self._tables[oid] = name.decode(), columns

    def _message(self, body: bytes) -> None:
        prefix, _, rest = body[9:].partition(b"\0")
        if body[0] & 1 and prefix in (b"zephyr.event", b"zephyr.context"):
            self._open.changes.append(Emitted(prefix.decode(), rest[4:]))

    def _change(self, body: bytes) -> Change:
        table, columns = self._tables[struct.unpack_from(">I", body)[0]]
        rows: dict[bytes, dict[str, object]] = {}
        at = 4
        while at < len(body):
            which, count = body[at : at + 1], struct.unpack_from(">H", body, at + 1)[0]
            at += 3
            row: dict[str, object] = {}
            for name in columns[:count]:
                how = body[at : at + 1]
                at += 1
                if how == b"t":
                    size = struct.unpack_from(">I", body, at)[0]
                    row[name] = body[at + 4 : at + 4 + size].decode()
                    at += 4 + size
                else:
                    row[name] = None if how == b"n" else _UNCHANGED
            rows[which] = row
        old, new = rows.get(b"O"), rows.get(b"N")
        return Change(table, _whole(old, None), _whole(new, old))


def _whole(row: dict[str, object] | None, before: dict[str, object] | None) -> Row | None:
    """A row with the large values that an update left alone taken from before it."""
    return None if row is None else dict(_values(row, before))


def _values(row: dict[str, object], before: dict[str, object] | None) -> Iterator[tuple[str, str | None]]:
    for name, value in row.items():
        known = value
        if value is _UNCHANGED:
            assert before is not None, f"{name} was left alone, and there is no row before it"
            known = before[name]
        assert known is None or isinstance(known, str)
        yield name, known
