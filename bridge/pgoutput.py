"""The logical replication protocol, decoded with no I/O.

Bytes of one message in, one ``Message`` out. The decoder remembers the relations that the
server described, since rows name them by OID only; a relation sent anew replaces the old
one for the rows that follow, so each row is read under its own schema version.

Source: the PostgreSQL documentation, "Logical Replication Message Formats" (protocol
version 1) and "Streaming Replication Protocol" (the frames ``w`` and ``k`` around them).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeVar

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
    Value,
)
from bridge.errors import ProtocolError

M = TypeVar("M")

MESSAGE_PREFIX = "zephyr."
"""Logical messages of other prefixes are other programs'."""

_POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 in Unix microseconds: where Postgres' timestamps count from."""

XLOG_DATA_KIND: Final = 0x77  # w
XLOG_DATA_HEAD: Final = 25
"""A frame of this kind has a message behind so many bytes."""

_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">BQQq")
_U32: Final = struct.Struct(">I")
_U16: Final = struct.Struct(">H")
_COLUMN: Final = struct.Struct(">Ii")
_XLOG_DATA: Final = struct.Struct(">QQq")
_KEEPALIVE: Final = struct.Struct(">QqB")
_STATUS: Final = struct.Struct(">cQQQqB")
_LOGICAL_MESSAGE: Final = struct.Struct(">BQ")
_INSERT: Final = Operation.INSERT
_UPDATE: Final = Operation.UPDATE
_TOAST: Final = Unchanged.TOAST


@dataclass(frozen=True, slots=True)
class XLogData:
    """A replication frame with one pgoutput message. ``wal_end`` is where the server's WAL ends."""

    wal_end: int
    server_time_us: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server is alive. Everything before ``wal_end`` was sent, or does not concern this slot."""

    wal_end: int
    server_time_us: int
    reply_requested: bool


def parse_frame(data: bytes) -> XLogData | Keepalive:
    """Reads one CopyData frame of the replication stream.

    Raises:
        ProtocolError: it is neither XLogData nor a keepalive, too short or too long.
    """
    try:
        kind = data[0]
        if kind == 0x77:  # w
            _, wal_end, time = _XLOG_DATA.unpack_from(data, 1)
            return XLogData(wal_end, time + _POSTGRES_EPOCH_US, data[25:])
        if kind == 0x6B:  # k
            wal_end, time, reply = _KEEPALIVE.unpack_from(data, 1)
            return _whole(data, 18, Keepalive(wal_end, time + _POSTGRES_EPOCH_US, bool(reply)))
    except (struct.error, IndexError) as exc:
        raise ProtocolError(f"a replication frame of {len(data)} bytes is cut short") from exc
    raise ProtocolError(f"a replication frame of unknown kind {bytes(data[:1])!r}")


def standby_status(confirmed_lsn: int, now_us: int, reply_requested: bool = False) -> bytes:
    """The feedback frame: written, flushed and applied are all what is confirmed."""
    return _STATUS.pack(
        b"r", confirmed_lsn, confirmed_lsn, confirmed_lsn, now_us - _POSTGRES_EPOCH_US, reply_requested
    )


class Decoder:
    """pgoutput messages to changes. One decoder a replication connection."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}

    def decode(self, data: bytes, start: int = 0) -> Message | None:
        """Reads the message that begins at ``start`` and ends with ``data``; None for kinds that concern
        nobody here (type, origin, others' logical messages).

        Raises:
            ProtocolError: the bytes are cut short, have something left over, name a relation
                that was never described, or are of a kind that was not asked for.
        """
        try:
            return self._decode(data, start)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as exc:
            raise ProtocolError(
                f"a pgoutput message {data[start : start + 1]!r} of {len(data) - start} bytes is malformed"
            ) from exc

    def _decode(self, data: bytes, start: int) -> Message | None:
        kind = data[start]
        body = start + 1
        if kind == 0x49:  # I
            relation = self._relation(data, body)
            new, end = _row(relation, data, _expect(data, start + 5, b"N"))
            return _whole(data, end, RowChange(_INSERT, relation, None, new))
        if kind == 0x55:  # U
            return self._update(data, body)
        if kind == 0x44:  # D
            relation = self._relation(data, body)
            old, end = _row(relation, data, _expect(data, start + 5, b"OK"))
            return _whole(data, end, RowChange(Operation.DELETE, relation, old, None))
        if kind == 0x42:  # B
            lsn, time, xid = _BEGIN.unpack_from(data, body)
            return _whole(data, start + 21, Begin(lsn, time + _POSTGRES_EPOCH_US, xid))
        if kind == 0x43:  # C
            _, lsn, end_lsn, time = _COMMIT.unpack_from(data, body)
            return _whole(data, start + 26, Commit(lsn, end_lsn, time + _POSTGRES_EPOCH_US))
        if kind == 0x52:  # R
            relation = _read_relation(data, body)
            self._relations[relation.oid] = relation
            return relation
        if kind == 0x54:  # T
            (count,) = _U32.unpack_from(data, body)
            relations = tuple([self._relation(data, start + 6 + 4 * i) for i in range(count)])
            return _whole(data, start + 6 + 4 * count, Truncate(relations))
        if kind == 0x4D:  # M
            return _read_logical_message(data, body)
        if kind in (0x59, 0x4F):  # Y, O
            return None
        raise ProtocolError(f"a pgoutput message of unknown kind {data[start : start + 1]!r}")

    def _update(self, data: bytes, at: int) -> Message:
        relation = self._relation(data, at)
        old: tuple[Value, ...] | None = None
        at += 4
        if data[at] in b"OK":
            old, at = _row(relation, data, at + 1)
        new, end = _row(relation, data, _expect(data, at, b"N"))
        return _whole(data, end, RowChange(_UPDATE, relation, old, new))

    def _relation(self, data: bytes, offset: int) -> Relation:
        (oid,) = _U32.unpack_from(data, offset)
        relation = self._relations.get(oid)
        if relation is None:
            raise ProtocolError(f"a row names relation {oid}, which was never described")
        return relation


def _read_relation(data: bytes, at: int) -> Relation:
    (oid,) = _U32.unpack_from(data, at)
    schema, at = _text(data, at + 4)
    table, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        is_key = bool(data[at] & 1)
        name, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(data, at)
        at += 8
        columns.append(Column(name, type_oid, modifier, is_key))
    relation = Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))
    _whole(data, at, relation)
    return relation


def _read_logical_message(data: bytes, at: int) -> LogicalMessage | None:
    flags, lsn = _LOGICAL_MESSAGE.unpack_from(data, at)
    prefix, at = _text(data, at + 9)
    (length,) = _U32.unpack_from(data, at)
    end = at + 4 + length
    if not prefix.startswith(MESSAGE_PREFIX):
        return _whole(data, end, None)
    return _whole(data, end, LogicalMessage(prefix, bytes(data[at + 4 : end]), lsn, bool(flags & 1)))


def _row(relation: Relation, data: bytes, at: int) -> tuple[tuple[Value, ...], int]:
    # The bridge's hottest loop: a slice that ends after the data is short, which ``at`` shows in the end.
    count = data[at] << 8 | data[at + 1]
    if count != len(relation.columns):
        raise ProtocolError(
            f"a row of {relation.name} has {count} columns, its relation {len(relation.columns)}"
        )
    at += 2
    values: list[Value] = []
    for _ in range(count):
        kind = data[at]
        if kind == 0x74:  # t: text
            start = at + 5
            at = start + (data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4])
            values.append(data[start:at].decode())
        elif kind == 0x6E:  # n: null
            at += 1
            values.append(None)
        elif kind == 0x75:  # u: unchanged TOAST
            at += 1
            values.append(_TOAST)
        else:
            raise ProtocolError(f"a column of unknown kind {bytes((kind,))!r}")
        if at > len(data):
            raise ProtocolError(f"a column ends at {at} in a message of {len(data)} bytes")
    return tuple(values), at


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return str(data[at:end], "utf-8"), end + 1


def _expect(data: bytes, at: int, kinds: bytes) -> int:
    if data[at] not in kinds:
        raise ProtocolError(f"a tuple of kind {bytes(data[at : at + 1])!r} stands where {kinds!r} belongs")
    return at + 1


def _whole(data: bytes, end: int, message: M) -> M:
    if end != len(data):
        raise ProtocolError(f"a pgoutput message of {len(data)} bytes ends after {end}")
    return message
