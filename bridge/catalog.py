"""The live schema, as far as the bridge depends on it.

Three statements read Postgres' catalogs; what they give are plain values, so that the
comparison with the mapping (``fit``) needs no database. A domain counts as its base type,
since the WAL sends its values in the base type's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

# One row a table that was asked for and exists; only unique keys that hold for every row
# count (no partial index, no expression, none that is still being built).
TABLES = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS table,
    quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql_name, c.relkind::text AS kind,
    c.relpersistence::text AS persistence, c.relreplident::text AS replica_identity,
    c.reltoastrelid <> 0 AS has_toast,
    (SELECT array_agg(a.attname::text) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
        WHERE i.indrelid = c.oid AND CASE c.relreplident
            WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END) AS identity_columns,
    (SELECT array_agg(a.attname::text) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
            AND i.indpred IS NULL AND i.indexprs IS NULL) AS unique_columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname || '.' || c.relname) = ANY (%(names)s)
"""

# One row a column. A domain is followed down to its base type.
COLUMNS = """
WITH RECURSIVE base (type_oid, base_oid, modifier) AS (
    SELECT oid, oid, -1 FROM pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT d.oid, b.base_oid, d.typtypmod FROM pg_type d JOIN base b ON d.typbasetype = b.type_oid
        WHERE d.typtype = 'd'
)
SELECT a.attrelid::bigint AS table_oid, a.attname AS name, quote_ident(a.attname) AS sql_name, a.atttypid::bigint AS type_oid,
    b.base_oid::bigint AS base_oid, t.typname AS base_name, t.typtype::text AS base_kind,
    format_type(a.atttypid, a.atttypmod) AS type_text, a.atttypmod AS type_modifier,
    NOT (a.attnotnull OR d.typnotnull) AS nullable, a.attgenerated <> '' AS generated,
    a.attlen = -1 AND a.attstorage <> 'p' AS can_toast
FROM pg_attribute a
JOIN pg_type d ON d.oid = a.atttypid
JOIN base b ON b.type_oid = a.atttypid
JOIN pg_type t ON t.oid = b.base_oid
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

# One row when the publication exists; `all` when it takes in every table by itself.
PUBLICATION = """
SELECT quote_ident(p.pubname) AS sql_name, p.puballtables AS all, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AS every_operation
FROM pg_publication p WHERE p.pubname = %(publication)s
"""

# One row a published table, with the columns that are published and whether rows are filtered.
PUBLISHED = """
SELECT t.schemaname || '.' || t.tablename AS name, t.attnames::text[] AS columns,
    t.rowfilter IS NOT NULL AS filtered
FROM pg_publication_tables t WHERE t.pubname = %(publication)s
"""

WAL_LEVEL = "SELECT current_setting('wal_level') AS wal_level"


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column. ``base_oid`` is its type, or what a domain is made of; ``base_kind`` is
    pg_type's typtype of that (b, e for an enum, …); ``type_text`` is the type as SQL writes it.
    ``sql_name``, here and below, is the name in the quotes that SQL needs."""

    name: str
    sql_name: str
    type_oid: int
    base_oid: int
    base_name: str
    base_kind: str
    type_text: str
    type_modifier: int
    nullable: bool
    generated: bool
    can_toast: bool


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table. ``kind`` is pg_class's relkind, ``persistence`` its relpersistence.

    ``identity_columns`` are those that an old row carries in the WAL unless
    ``replica_identity`` is f; ``unique_columns`` each are unique by themselves.
    ``published`` has the published columns; None when the publication lacks the table.
    """

    oid: int
    schema: str
    table: str
    sql_name: str
    kind: str
    persistence: str
    replica_identity: str
    columns: dict[str, LiveColumn]
    identity_columns: frozenset[str]
    unique_columns: frozenset[str]
    published: frozenset[str] | None
    filtered: bool

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication that exists. ``all_tables``: it takes in every table by itself."""

    sql_name: str
    all_tables: bool
    every_operation: bool


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was read. ``publication`` is None when it does not exist yet or was not asked for."""

    wal_level: str
    tables: dict[str, LiveTable]
    publication: Publication | None


async def read_catalog(
    connection: AsyncConnection[Any], names: Sequence[str], publication: str | None = None
) -> Catalog:
    """Reads the tables called ``schema.table``; those that do not exist are absent.

    Raises:
        psycopg.Error: the connection broke.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:

        async def rows(statement: str, **values: object) -> list[dict[str, Any]]:
            await cursor.execute(statement.encode(), values)
            return await cursor.fetchall()

        wal_level = (await rows(WAL_LEVEL))[0]["wal_level"]
        tables = await rows(TABLES, names=list(names))
        columns = await rows(COLUMNS, oids=[table["oid"] for table in tables])
        publications = await rows(PUBLICATION, publication=publication or "")
        published = {row["name"]: row for row in await rows(PUBLISHED, publication=publication or "")}

    by_table: dict[int, dict[str, LiveColumn]] = {table["oid"]: {} for table in tables}
    toasted = {table["oid"]: table.pop("has_toast") for table in tables}
    for column in columns:
        oid = column.pop("table_oid")
        # A table whose rows always fit a page has no TOAST table, whatever its columns' types.
        column["can_toast"] = column["can_toast"] and toasted[oid]
        by_table[oid][column["name"]] = LiveColumn(**column)

    live = {}
    for table in tables:
        name = f"{table['schema']}.{table['table']}"
        entry = published.get(name)
        live[name] = LiveTable(
            **table
            | {
                "columns": by_table[table["oid"]],
                "identity_columns": frozenset(table["identity_columns"] or ()),
                "unique_columns": frozenset(table["unique_columns"] or ()),
                "published": frozenset(entry["columns"]) if entry is not None else None,
                "filtered": entry is not None and entry["filtered"],
            }
        )
    found = publications[0] if publications else None
    return Catalog(
        wal_level,
        live,
        Publication(found["sql_name"], found["all"], found["every_operation"]) if found is not None else None,
    )
