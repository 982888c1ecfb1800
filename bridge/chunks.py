"""Tables in parts: ranges of blocks, each read in one statement within one snapshot.

A range of blocks needs no index and no order, and the rows that a snapshot sees stay where they
are as long as the table is not rewritten, which the lock of ``hold_still`` forbids. Values come in
the text that the WAL has them in, since COPY uses the same output functions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from bridge.change import Column, Relation, Value
from bridge.errors import SourceUnfit, Unreachable
from bridge.fit import FittedTable
from bridge.postgres import one_line

PART_BLOCKS = 512
"""Four megabytes at Postgres' own block size."""

_SETTINGS = (
    # The texts that the replication session has; see slot.py.
    "SET client_encoding = 'UTF8'",
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 3",
    "SET bytea_output = 'hex'",
    # A policy would leave rows out in silence; without it the statement fails instead.
    "SET row_security = off",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
)


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table to be copied. ``rows`` is what the planner expects, -1 when it does not know."""

    fitted: FittedTable
    relation: Relation
    filenode: int
    blocks: int
    rows: int

    @property
    def name(self) -> str:
        return self.fitted.mapping.name


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks from ``first`` up to ``end``, which is None for the last part: whatever comes after.

    ``changed_since`` is a transaction: rows that older ones wrote are passed over; 0 passes over none.
    """

    table: CopiedTable
    first: int
    end: int | None
    changed_since: int = 0


def relation_of(table: FittedTable) -> Relation:
    """The table as its own rows are read: the columns that the mapping uses, in its order."""
    mapping = table.mapping
    columns = tuple(
        Column(name, table.columns[name].type_oid, -1, is_key=True) for name in mapping.used_columns
    )
    return Relation(table.oid, mapping.schema, mapping.table, "f", columns)


def parts_of(table: CopiedTable, copied_blocks: int = 0, changed_since: int = 0) -> Iterator[Part]:
    """The parts of a table in their order; in the first ``copied_blocks`` only what changed since."""
    copied = min(copied_blocks, table.blocks)
    bounds = [*range(0, copied, PART_BLOCKS), *range(copied, table.blocks, PART_BLOCKS)]
    for place, first in enumerate(bounds):
        end = bounds[place + 1] if place + 1 < len(bounds) else None
        # The last part has no end, and blocks after what was copied must be read whole.
        if first < copied and end is None:
            yield Part(table, first, copied, changed_since)
            yield Part(table, copied, None)
        else:
            yield Part(table, first, end, changed_since if first < copied else 0)
    if not bounds:
        yield Part(table, 0, None)


async def connect(dsn: str) -> AsyncConnection[Any]:
    """A session that reads rows as the WAL has them.

    Raises:
        psycopg.Error: it cannot be had.
    """
    connection = await AsyncConnection.connect(
        dsn, autocommit=True, connect_timeout=10, application_name="zephyr-bridge-snapshot"
    )
    try:
        for statement in _SETTINGS:
            await connection.execute(statement.encode())
    except BaseException:
        await connection.close()
        raise
    return connection


async def hold_still(connection: AsyncConnection[Any], tables: Iterable[FittedTable]) -> None:
    """Keeps the tables from being rewritten or truncated, as long as the session's transaction lives."""
    await connection.execute("BEGIN")
    for table in tables:
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(rows_of(table)))


async def enter_snapshot(connection: AsyncConnection[Any], snapshot: str) -> None:
    """Begins a transaction that sees what the exported snapshot sees."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


async def snapshot_xmin(connection: AsyncConnection[Any]) -> tuple[int, int]:
    """The oldest transaction that was running at the snapshot (64 bits), and Postgres' time in microseconds."""
    cursor = await connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
        " (extract(epoch FROM now()) * 1000000)::bigint"
    )
    ((xmin, now_us),) = await cursor.fetchall()
    return int(xmin), int(now_us)


async def measure(connection: AsyncConnection[Any], table: FittedTable) -> CopiedTable:
    """How large a table is now."""
    cursor = await connection.execute(
        "SELECT coalesce(pg_relation_filenode(oid), 0)::bigint,"  # a partitioned table has none, and no blocks
        " pg_relation_size(oid) / current_setting('block_size')::bigint, reltuples::bigint"
        " FROM pg_class WHERE oid = %s",
        (table.oid,),
    )
    row = await cursor.fetchone()
    if row is None:
        raise Unreachable(f"the table {table.mapping.name} went away")
    return CopiedTable(table, relation_of(table), int(row[0]), int(row[1]), int(row[2]))


async def read_rows(connection: AsyncConnection[Any], part: Part) -> AsyncGenerator[tuple[Value, ...], None]:
    """The rows of a part, in the order of its relation's columns."""
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in part.table.relation.columns)
    query = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT").format(
        columns, rows_of(part.table.fitted), sql.SQL(" AND ").join(_conditions(part))
    )
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        async for row in copy.rows():
            yield row


def _conditions(part: Part) -> Iterator[sql.Composable]:
    yield sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({part.first},0)"))
    if part.end is not None:
        yield sql.SQL("ctid < {}::tid").format(sql.Literal(f"({part.end},0)"))
    if part.changed_since:
        # xmin has 32 bits: it is the youngest 64-bit id before the snapshot's end that ends in them.
        yield sql.SQL(
            "(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) - 1"
            " - (((SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) - 1 - xmin::text::bigint)"
            " & 4294967295) >= {}"
        ).format(sql.Literal(part.changed_since))


def translate_read(exc: psycopg.Error) -> SourceUnfit | Unreachable:
    """An error of reading rows as ours."""
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return SourceUnfit(
            f"the tables cannot be copied: {one_line(exc)}",
            "give the role SELECT on the mapped tables (and BYPASSRLS where they have policies),"
            " or set ZEPHYR_SNAPSHOT=never",
        )
    if isinstance(exc, psycopg.OperationalError):
        return Unreachable(f"Postgres went away while the tables were copied: {one_line(exc)}")
    return SourceUnfit(f"the tables cannot be copied: {one_line(exc)}", "see the server's log")


def rows_of(table: FittedTable) -> sql.Composable:
    """Where a statement finds the table's rows: with its partitions, without tables that inherit from it."""
    name = sql.Identifier(table.mapping.schema, table.mapping.table)
    return name if table.partitioned else sql.SQL("ONLY {}").format(name)
