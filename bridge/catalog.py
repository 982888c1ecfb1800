"""The live schema, as far as the bridge depends on it.

A few statements read Postgres' catalogs; what they give are plain values, so that the
comparison with the mapping (``fit``) needs no database. A domain counts as its base type,
since the WAL sends its values in the base type's text. The partitions of a table are tables
too: rows are written there, and there the WAL gets their old values from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bridge.pgtype import PgType
from bridge.pgtype_catalog import read_types

# One row a table that was asked for and exists; only unique keys that hold for every row
# count (no partial index, no expression, none that is still being built). A unique index of a
# partitioned table must have the partition key in it: beside that, one column is unique in each partition.
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
            AND i.indpred IS NULL AND i.indexprs IS NULL) AS unique_columns,
    (SELECT array_agg(a.attname::text) FROM pg_index i
        JOIN pg_partitioned_table t ON t.partrelid = c.oid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
            AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k (attnum)
                WHERE k.attnum <> a.attnum AND k.attnum <> ALL (t.partattrs))) AS unique_in_partition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname || '.' || c.relname) = ANY (%(names)s) OR c.oid = ANY (%(oids)s::oid[])
"""

# One row a partition that holds rows, at whatever depth, with its root's OID.
PARTITIONS = """
SELECT r.oid::bigint AS root_oid, p.relid::bigint AS oid
FROM pg_class r CROSS JOIN LATERAL pg_partition_tree(r.oid) p
WHERE r.oid = ANY (%(oids)s::oid[]) AND r.relkind = 'p' AND p.isleaf AND p.relid <> r.oid
"""

COLUMNS = """
SELECT a.attrelid::bigint AS table_oid, a.attname AS name, quote_ident(a.attname) AS sql_name, a.atttypid::bigint AS type_oid,
    format_type(a.atttypid, a.atttypmod) AS type_text, a.atttypmod AS type_modifier,
    NOT (a.attnotnull OR d.typnotnull) AS nullable, a.attgenerated::text AS generated,
    a.attlen = -1 AND a.attstorage <> 'p' AS can_toast
FROM pg_attribute a
JOIN pg_type d ON d.oid = a.atttypid
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

SERVER = """
SELECT current_setting('wal_level') AS wal_level, current_setting('server_version_num')::int AS version
"""


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column. ``base`` is its type, or what a domain is made of; ``type_text`` is the type as
    SQL writes it. ``generated`` is pg_attribute's attgenerated: s when stored, v when virtual, or
    empty. ``sql_name``, here and below, is the name in the quotes that SQL needs."""

    name: str
    sql_name: str
    type_oid: int
    base: PgType
    type_text: str
    type_modifier: int
    nullable: bool
    generated: str
    can_toast: bool

    @property
    def base_oid(self) -> int:
        return self.base.oid


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table. ``kind`` is pg_class's relkind, ``persistence`` its relpersistence.

    ``identity_columns`` are those that an old row carries in the WAL unless
    ``replica_identity`` is f; ``unique_columns`` each are unique by themselves.
    ``published`` has the published columns; None when the publication lacks the table.
    ``partitions`` are those that hold rows, at whatever depth; their own are not set.
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
    partitions: tuple[LiveTable, ...] = ()

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
    """What was read. ``publication`` is None when it does not exist yet or was not asked for;
    ``server_version`` is as Postgres numbers it: 180000 is 18.0."""

    wal_level: str
    tables: dict[str, LiveTable]
    publication: Publication | None
    server_version: int = 180_000


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

        server = (await rows(SERVER))[0]
        tables = await rows(TABLES, names=list(names), oids=[])
        leaves = await rows(PARTITIONS, oids=[table["oid"] for table in tables])
        root_of = {leaf["oid"]: leaf["root_oid"] for leaf in leaves}
        partitions = await rows(TABLES, names=[], oids=list(root_of))
        oids = [table["oid"] for table in (*tables, *partitions)]
        columns = await rows(COLUMNS, oids=oids)
        types = await read_types(cursor, {column["type_oid"] for column in columns})
        publications = await rows(PUBLICATION, publication=publication or "")
        published = {row["name"]: row for row in await rows(PUBLISHED, publication=publication or "")}

    by_table: dict[int, dict[str, LiveColumn]] = {oid: {} for oid in oids}
    # A table whose rows always fit a page has no TOAST table, whatever its columns' types. A
    # partitioned one never has one; its partitions, those to come as well, may.
    without_toast = {
        each["oid"] for each in (*tables, *partitions) if not each.pop("has_toast") and each["kind"] != "p"
    }
    for column in columns:
        oid = column.pop("table_oid")
        column["can_toast"] = column["can_toast"] and oid not in without_toast
        by_table[oid][column["name"]] = LiveColumn(**column, base=types[column["type_oid"]])

    leaves_of: dict[int, list[LiveTable]] = {}
    for row in sorted(partitions, key=lambda row: str(row["sql_name"])):
        leaves_of.setdefault(root_of[row["oid"]], []).append(_table(row, by_table[row["oid"]], None))
    live = {}
    for row in tables:
        entry = published.get(f"{row['schema']}.{row['table']}")
        table = _table(row, by_table[row["oid"]], entry, tuple(leaves_of.get(row["oid"], ())))
        live[table.name] = table
    found = publications[0] if publications else None
    return Catalog(
        server["wal_level"],
        live,
        Publication(found["sql_name"], found["all"], found["every_operation"]) if found is not None else None,
        server["version"],
    )


def _table(
    row: dict[str, Any],
    columns: dict[str, LiveColumn],
    published: dict[str, Any] | None,
    partitions: tuple[LiveTable, ...] = (),
) -> LiveTable:
    unique_in_partition = row.pop("unique_in_partition") or ()
    return LiveTable(
        **row
        | {
            "columns": columns,
            "identity_columns": frozenset(row["identity_columns"] or ()),
            "unique_columns": frozenset((*(row["unique_columns"] or ()), *unique_in_partition)),
            "published": frozenset(published["columns"]) if published is not None else None,
            "filtered": published is not None and published["filtered"],
            "partitions": partitions,
        }
    )
