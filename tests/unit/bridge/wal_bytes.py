"""Writes what Postgres would send: the other half of ``bridge.pgoutput``, made from the same page.

Source: the PostgreSQL documentation, "Logical Replication Message Formats" and "Streaming
Replication Protocol". Shares no code with the decoder, so that it can be its oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.change import (
    Begin,
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

EPOCH_US = 946_684_800_000_000


def unsigned(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def signed(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big", signed=True)


def time(unix_us: int) -> bytes:
    return signed(unix_us - EPOCH_US, 8)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def tuple_data(values: Sequence[Value]) -> bytes:
    columns = []
    for value in values:
        if value is None:
            columns.append(b"n")
        elif value is Unchanged.TOAST:
            columns.append(b"u")
        else:
            assert isinstance(value, str)
            data = value.encode()
            columns.append(b"t" + unsigned(len(data), 4) + data)
    return unsigned(len(values), 2) + b"".join(columns)


def message(of: Message) -> bytes:
    """The pgoutput message of a decoded one."""
    if isinstance(of, Begin):
        return b"B" + unsigned(of.commit_lsn, 8) + time(of.commit_time_us) + unsigned(of.xid, 4)
    if isinstance(of, Commit):
        return b"C\0" + unsigned(of.commit_lsn, 8) + unsigned(of.end_lsn, 8) + time(of.commit_time_us)
    if isinstance(of, Relation):
        columns = b"".join(
            bytes((column.is_key,))
            + text(column.name)
            + unsigned(column.type_oid, 4)
            + signed(column.type_modifier, 4)
            for column in of.columns
        )
        schema = "" if of.schema == "pg_catalog" else of.schema
        head = unsigned(of.oid, 4) + text(schema) + text(of.table) + of.replica_identity.encode()
        return b"R" + head + unsigned(len(of.columns), 2) + columns
    if isinstance(of, Truncate):
        oids = b"".join(unsigned(relation.oid, 4) for relation in of.relations)
        return b"T" + unsigned(len(of.relations), 4) + b"\0" + oids
    if isinstance(of, LogicalMessage):
        head = b"M" + bytes((of.transactional,)) + unsigned(of.lsn, 8) + text(of.prefix)
        return head + unsigned(len(of.content), 4) + of.content
    assert isinstance(of, RowChange)
    oid = unsigned(of.relation.oid, 4)
    kind = b"O" if of.relation.replica_identity == "f" else b"K"
    old = kind + tuple_data(of.old) if of.old is not None else b""
    new = b"N" + tuple_data(of.new) if of.new is not None else b""
    return {Operation.INSERT: b"I", Operation.UPDATE: b"U", Operation.DELETE: b"D"}[of.operation] + (
        oid + old + new
    )


def xlog_data(of: bytes, wal_end: int = 0, at_us: int = EPOCH_US) -> bytes:
    """The frame around a message."""
    return b"w" + unsigned(wal_end, 8) + unsigned(wal_end, 8) + time(at_us) + of


def keepalive(wal_end: int, at_us: int = EPOCH_US, reply_requested: bool = False) -> bytes:
    """The frame that says that the server lives."""
    return b"k" + unsigned(wal_end, 8) + time(at_us) + bytes((reply_requested,))
