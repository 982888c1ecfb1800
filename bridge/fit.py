"""Mapping, live schema and messages, held against each other before anything is read.

Whatever would later stop the bridge in the middle of a row, and can be seen now, is said
now, all of it at once, each with the statement that mends it. ``mismatches`` compares plain
values; ``check_fit`` reads the schema and raises. What the encoder needs of the schema is
in the ``FittedMapping``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from google.protobuf.descriptor import FieldDescriptor
from psycopg import AsyncConnection

from bridge import values
from bridge.catalog import Catalog, LiveColumn, LiveTable, read_catalog
from bridge.errors import MappingMismatch, Unreachable
from bridge.mapping import Mapping, TableMapping
from bridge.old_rows import generated_mismatches, identity_mismatches
from bridge.pgtype import ENUM, PgType

_RELATION_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
}
# Types whose texts are tokens of a subject: the first always, the others row by row.
ALWAYS_TOKENS = frozenset((values.UUID, values.INT2, values.INT4, values.INT8, values.OID))
_SOMETIMES_TOKENS = frozenset((values.TEXT, values.VARCHAR, values.BPCHAR, values.NAME))


@dataclass(frozen=True, slots=True)
class FittedColumn:
    """A column as it was at the check: its type as the WAL names it, and its base type.

    ``base`` is the base type's structure; without it the type is none that has one."""

    name: str
    type_oid: int
    base_oid: int
    type_text: str
    base: PgType | None = None

    def converter(self, field: FieldDescriptor) -> values.Converter:
        """What turns the column's texts into values of a field that it was checked to fit."""
        return values.converter(self.base_oid if self.base is None else self.base, field)


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A mapped table with the types of the columns that the bridge reads."""

    mapping: TableMapping
    oid: int
    columns: dict[str, FittedColumn]


@dataclass(frozen=True, slots=True)
class FittedMapping:
    """A mapping that fits the schema, by ``schema.table``.

    ``checked_lsn`` is where the WAL ended when the schema was read: rows from before may be of
    older versions of their tables, rows from after of newer ones."""

    tables: dict[str, FittedTable]
    checked_lsn: int = 0


async def check_fit(
    connection: AsyncConnection[Any], mapping: Mapping, publication: str | None = None
) -> FittedMapping:
    """Compares the mapping with the live schema.

    A ``publication`` that does not exist yet is no mismatch: the bridge makes it.

    Raises:
        MappingMismatch: they do not fit; lists every reason.
        Unreachable: the connection broke.
    """
    try:
        # Before the schema: what is committed between the two counts as newer, and is looked at again.
        cursor = await connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        row = await cursor.fetchone()
        catalog = await read_catalog(connection, list(mapping.tables), publication)
    except psycopg.OperationalError as exc:
        line = " ".join(str(exc).split())
        raise Unreachable(f"Postgres went away: {line}", "start it, or correct ZEPHYR_POSTGRES_DSN") from exc
    found = mismatches(mapping, catalog)
    if found:
        raise MappingMismatch(found)
    return fitted(mapping, catalog, int(row[0]) if row is not None else 0)


def fitted(mapping: Mapping, catalog: Catalog, checked_lsn: int = 0) -> FittedMapping:
    """What the encoder needs; call it when ``mismatches`` is empty."""
    tables = {}
    for table in mapping.tables.values():
        live = catalog.tables[table.name]
        columns = {name: _fitted_column(live.columns[name]) for name in table.used_columns}
        tables[table.name] = FittedTable(table, live.oid, columns)
    return FittedMapping(tables, checked_lsn)


def mismatches(mapping: Mapping, catalog: Catalog) -> list[str]:
    """Every reason why the mapping does not fit, one line each with its mend."""
    return list(_mismatches(mapping, catalog))


def _mismatches(mapping: Mapping, catalog: Catalog) -> Iterator[str]:
    if catalog.wal_level != "logical":
        yield (
            f"the server: wal_level is {catalog.wal_level}; "
            "run: ALTER SYSTEM SET wal_level = logical; then restart Postgres"
        )
    if catalog.publication is not None and not catalog.publication.every_operation:
        name = catalog.publication.sql_name
        yield (
            f"publication {name}: leaves out operations; "
            f"run: ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
        )
    for table in mapping.tables.values():
        live = catalog.tables.get(table.name)
        if live is None:
            yield (
                f"{table.name}: there is no such table; run `zephyr migrate` if it is one of Zephyr's, "
                f"or take it out of {mapping.origin}"
            )
        elif (unfit := _unlogged(live)) is not None:
            yield f"{table.name}: is {unfit}, which cannot be mapped; map an ordinary, logged table, or take it out of {mapping.origin}"
        else:
            yield from _columns(table, live)
            yield from _routing(table, live)
            yield from _partitions(table, live, catalog)
            yield from identity_mismatches(table, live)
            yield from generated_mismatches(table, live, catalog)
            yield from _publication(table, live, catalog)


def _columns(table: TableMapping, live: LiveTable) -> Iterator[str]:
    for name in table.used_columns:
        if name not in live.columns:
            yield f"{table.name}.{name}: there is no such column; add it, or take it out of the mapping"
    for name, field_name in table.columns:
        column = live.columns.get(name)
        if column is None:
            continue
        field = table.message.fields_by_name[field_name]
        try:
            values.converter(column.base, field)
        except values.Unconvertible as exc:
            mend = exc.mend or f"map {exc.accepted} column"
            yield (
                f"{table.name}.{name}: {column.type_text} cannot become {values.field_type(field)} "
                f"{table.message.name}.{field_name}{f': {exc.reason}' if exc.reason else ''}; {mend}"
            )


def _unlogged(live: LiveTable) -> str | None:
    """What a relation is whose changes are not in the WAL as rows; None for one whose are."""
    if live.kind in ("r", "p") and live.persistence == "p":
        return None
    return _RELATION_KINDS.get(live.kind, "an unlogged or temporary table")


def _partitions(table: TableMapping, live: LiveTable, catalog: Catalog) -> Iterator[str]:
    for leaf in live.partitions:
        unfit = _unlogged(leaf)
        if unfit is not None:
            yield (
                f"{table.name}: its partition {leaf.name} is {unfit}, whose changes are not in the WAL; "
                f"run: ALTER TABLE {live.sql_name} DETACH PARTITION {leaf.sql_name}"
            )
        if leaf.name in catalog.tables:
            yield (
                f"{leaf.name}: its rows are sent as those of {table.name}, which it is a partition of; "
                "take one of the two out of the mapping"
            )


def _routing(table: TableMapping, live: LiveTable) -> Iterator[str]:
    if table.key in live.columns and table.key not in live.unique_columns:
        yield (
            f"{table.name}.{table.key}: is the key of the mapping, and neither the primary key nor unique; "
            f"run: ALTER TABLE {live.sql_name} ADD UNIQUE ({live.columns[table.key].sql_name}), or name another key"
        )
    for name in dict.fromkeys((table.key, table.workspace or table.key)):
        column = live.columns.get(name)
        if column is None:
            continue
        role = "key" if name == table.key else "routing column"
        if not can_be_token(column):
            yield (
                f"{table.name}.{name}: {column.type_text} cannot be the {role}, since it is no part of a subject; "
                "name a uuid, bigint, integer, text or varchar column"
            )
        if column.nullable:
            yield (
                f"{table.name}.{name}: the {role} can be NULL; "
                f"run: ALTER TABLE {live.sql_name} ALTER COLUMN {column.sql_name} SET NOT NULL"
            )


def _publication(table: TableMapping, live: LiveTable, catalog: Catalog) -> Iterator[str]:
    if catalog.publication is None:
        return
    publication = catalog.publication.sql_name
    if live.published is None:
        yield (
            f"{table.name}: is not in the publication {publication}; "
            f"run: ALTER PUBLICATION {publication} ADD TABLE {live.sql_name}"
        )
        return
    unpublished = [
        name
        for name in table.used_columns
        if name in live.columns and name not in live.published and not live.columns[name].generated
    ]
    if unpublished or live.filtered:
        what = f"leaves out {', '.join(unpublished)}" if unpublished else "filters its rows"
        yield (
            f"{table.name}: the publication {publication} {what}; run: ALTER PUBLICATION {publication} "
            f"DROP TABLE {live.sql_name}; ALTER PUBLICATION {publication} ADD TABLE {live.sql_name}"
        )


def can_be_token(column: LiveColumn) -> bool:
    """Whether values of the column can stand in a subject, at least some of them."""
    return (
        column.base_oid in ALWAYS_TOKENS
        or column.base_oid in _SOMETIMES_TOKENS
        or column.base.kind == ENUM
        or column.base.name.rpartition(".")[2] == "citext"
    )


def _fitted_column(column: LiveColumn) -> FittedColumn:
    return FittedColumn(column.name, column.type_oid, column.base_oid, column.type_text, column.base)
