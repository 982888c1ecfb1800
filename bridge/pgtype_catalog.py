"""Types and what they are made of, from Postgres' catalogs.

One statement reads a closure: domains' bases, arrays' elements, composites' attributes. Postgres
has no type that contains itself, so that the tree which is built from it is finite.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from psycopg import AsyncCursor

from bridge.pgtype import PgType

# One row a type. `element` is set for what array_out writes: int2vector has elements as well,
# and is no array in that sense.
TYPES = """
WITH RECURSIVE used (oid) AS (
    SELECT unnest(%(oids)s::oid[])
    UNION
    SELECT part.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT e.oid FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid
        UNION ALL SELECT a.atttypid FROM pg_attribute a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
)
SELECT t.oid::bigint AS oid, format_type(t.oid, NULL) AS name, t.typtype::text AS kind,
    t.typbasetype::bigint AS base, e.oid::bigint AS element, e.typdelim::text AS delimiter,
    (SELECT array_agg(l.enumlabel::text ORDER BY l.enumsortorder) FROM pg_enum l
        WHERE l.enumtypid = t.oid) AS labels,
    c.names, c.types
FROM used u JOIN pg_type t ON t.oid = u.oid
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names,
        array_agg(a.atttypid::bigint ORDER BY a.attnum) AS types
    FROM pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
) c ON true
"""


async def read_types(cursor: AsyncCursor[dict[str, Any]], oids: Iterable[int]) -> dict[int, PgType]:
    """The types by the OIDs that were asked for; a domain's is what it is made of.

    Raises:
        psycopg.Error: the connection broke.
    """
    wanted = list(oids)
    await cursor.execute(TYPES.encode(), {"oids": wanted})
    rows = {row["oid"]: row for row in await cursor.fetchall()}

    @cache
    def built(oid: int) -> PgType:
        row = rows[oid]
        if row["kind"] == "d":
            return built(row["base"])
        return PgType(
            oid,
            row["name"],
            row["kind"],
            labels=tuple(row["labels"] or ()),
            element=built(row["element"]) if row["element"] is not None else None,
            delimiter=row["delimiter"] or ",",
            attributes=tuple(
                (name, built(part)) for name, part in zip(row["names"] or (), row["types"] or (), strict=True)
            ),
        )

    return {oid: built(oid) for oid in wanted}
