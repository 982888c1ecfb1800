"""A Postgres type, as far as a value's text depends on it.

Domains are followed to what they are made of, at every depth: the WAL sends a domain's values
in its base type's text. Built-in types are known by their OIDs, which never change; what an
installation made itself (enums, composites, what an extension brings) by its structure.
"""

from __future__ import annotations

from dataclasses import dataclass

BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID = 16, 17, 19, 20, 21, 23, 25, 26
JSON, FLOAT4, FLOAT8, BPCHAR, VARCHAR = 114, 700, 701, 1042, 1043
DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC, UUID, JSONB = 1082, 1114, 1184, 1700, 2950, 3802

ENUM, COMPOSITE = "e", "c"


@dataclass(frozen=True, slots=True)
class PgType:
    """A type that is no domain. ``kind`` is pg_type's typtype, ``name`` as SQL writes it.

    ``labels`` are an enum's. An array has an ``element``, and the ``delimiter`` of its text; a
    composite has ``attributes``, in their order.
    """

    oid: int
    name: str = "?"
    kind: str = "b"
    labels: tuple[str, ...] = ()
    element: PgType | None = None
    delimiter: str = ","
    attributes: tuple[tuple[str, PgType], ...] = ()
