"""The bridge's own publication: exactly the mapped tables, made before the slot.

A slot decodes with the catalog as of each change, so a publication that is younger than
the slot would make the first changes fail.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import AsyncConnection, sql

from bridge.catalog import Catalog
from bridge.errors import EpochLost, SourceUnfit, Unreachable

_PUBLISHED = """
SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %(publication)s
"""
# The last column is there from Postgres 18 on.
_OPTIONS = """
SELECT p.puballtables, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
    coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's'
FROM pg_publication p WHERE p.pubname = %(publication)s
"""
# Whether the tables have generated columns that can be published. With REPLICA IDENTITY FULL all
# of them must be, mapped or not: else Postgres refuses each update and delete of the tables.
_GENERATED = """
SELECT current_setting('server_version_num')::int >= 180000 AND EXISTS (
    SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = ANY (%(tables)s) AND a.attgenerated = 's' AND NOT a.attisdropped)
"""
_GENERATED_SINCE = 180_000
_VIA_ROOT = "publish_via_partition_root = true"
WITH_GENERATED = "publish_generated_columns = stored"


async def ensure_publication(
    connection: AsyncConnection[tuple[object, ...]], publication: str, tables: Iterable[str], create: bool
) -> None:
    """Makes the publication, or brings it to the mapped tables (``schema.table``).

    Without ``create`` it must be there: the slot exists, and decoding passes over the changes from
    before a publication was made.

    Raises:
        EpochLost: it must be there and is not.
        SourceUnfit: the role may not do it, or the publication leaves operations out.
        Unreachable: Postgres went away.
    """
    wanted = sorted(tables)
    generated = False
    name = sql.Identifier(publication)
    listed = sql.SQL(", ").join(sql.Identifier(*table.split(".", 1)) for table in wanted)
    try:
        found = await (await connection.execute(_OPTIONS, {"publication": publication})).fetchone()
        row = await (await connection.execute(_GENERATED, {"tables": wanted})).fetchone()
        generated = row is not None and bool(row[0])
        if found is None:
            if not create:
                raise EpochLost(
                    f"the publication {publication!r} is gone: changes since it went may be missing",
                    "run: zephyr bridge new-epoch",
                )
            await connection.execute(
                sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})").format(
                    name, listed, sql.SQL(_options(generated))
                )
            )
            return
        all_tables, all_operations, via_root, with_generated = found
        if not all_operations or not via_root:
            raise SourceUnfit(
                f"the publication {publication!r} does not publish every operation via the partition root",
                f"run: ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate',"
                " publish_via_partition_root = true)",
            )
        if generated and not with_generated:
            await connection.execute(
                sql.SQL("ALTER PUBLICATION {} SET ({})").format(name, sql.SQL(WITH_GENERATED))
            )
        cursor = await connection.execute(_PUBLISHED, {"publication": publication})
        published = {str(row[0]) for row in await cursor.fetchall()}
        if not all_tables and published != set(wanted):
            await connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, listed))
    except psycopg.errors.InsufficientPrivilege as exc:
        raise SourceUnfit(
            f"the role may not change the publication {publication!r}: {exc}",
            f"as an owner of the tables run: {creation_of(publication, wanted, generated=generated)}",
        ) from exc
    except psycopg.OperationalError as exc:
        raise Unreachable(f"Postgres went away: {' '.join(str(exc).split())}") from exc
    except psycopg.Error as exc:
        raise SourceUnfit(
            f"the publication {publication!r} cannot be made: {' '.join(str(exc).split())}",
            "see the server's log",
        ) from exc


def creation_of(publication: str, tables: Iterable[str], *, generated: bool) -> str:
    """The statement that makes the publication, for a person to run; ``generated``: as ``has_generated``."""
    return f"CREATE PUBLICATION {publication} FOR TABLE {', '.join(tables)} WITH ({_options(generated)})"


def has_generated(catalog: Catalog) -> bool:
    """Whether the tables have generated columns that can be published, and so have to be."""
    return catalog.server_version >= _GENERATED_SINCE and any(
        column.generated == "s" for table in catalog.tables.values() for column in table.columns.values()
    )


def _options(generated: bool) -> str:
    return f"{_VIA_ROOT}, {WITH_GENERATED}" if generated else _VIA_ROOT
