"""Whether old rows stand in the WAL as the events need them.

An update and a delete give what the replica identity says of the row before. A partitioned
table's rows are written in its partitions, each with an identity of its own, while the WAL's
reader hears of the root's alone: they must not be narrower than it. And an identity that
has a generated column which is not published makes Postgres refuse the writers' updates.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.catalog import Catalog, LiveTable
from bridge.mapping import TableMapping

_IDENTITIES = {"d": "DEFAULT", "n": "NOTHING", "i": "USING INDEX", "f": "FULL"}
FULL = "f"
STORED, VIRTUAL = "s", "v"
GENERATED_ARE_PUBLISHED = 180_000
"""The first server that publishes stored generated columns."""


def identity_mismatches(table: TableMapping, live: LiveTable) -> Iterator[str]:
    """Where replica identities leave out what an event needs, one line a table."""
    yield from _narrow(table, live, live)
    if live.replica_identity != FULL:
        for leaf in live.partitions:
            yield from _narrow(table, live, leaf)
        return
    narrower = [leaf for leaf in live.partitions if leaf.replica_identity != FULL]
    if narrower:
        names = ", ".join(leaf.name for leaf in narrower)
        mends = "; ".join(f"ALTER TABLE {leaf.sql_name} REPLICA IDENTITY FULL" for leaf in narrower)
        yield (
            f"{table.name}: replica identity is FULL, and that of its partitions {names} is not; run: {mends}"
        )


def generated_mismatches(table: TableMapping, live: LiveTable, catalog: Catalog) -> Iterator[str]:
    """Generated columns that the WAL does not have, and those that keep rows from being changed."""
    publication = catalog.publication
    for name in table.used_columns:
        column = live.columns.get(name)
        if column is None or not column.generated:
            continue
        at = f"{table.name}.{name}"
        if column.generated == VIRTUAL:
            yield (
                f"{at}: is a virtual generated column, which is not in the WAL; "
                "make it anew as GENERATED ALWAYS AS (…) STORED, or take it out of the mapping"
            )
        elif catalog.server_version < GENERATED_ARE_PUBLISHED:
            yield (
                f"{at}: is a generated column, which only Postgres 18 and newer publish; "
                "upgrade the server, or take it out of the mapping"
            )
        elif publication is not None and live.published is not None and name not in live.published:
            yield (
                f"{at}: is a generated column, and the publication {publication.sql_name} leaves them out; "
                f"run: ALTER PUBLICATION {publication.sql_name} SET (publish_generated_columns = stored)"
            )
    virtual = [name for name, column in live.columns.items() if column.generated == VIRTUAL]
    full = any(each.replica_identity == FULL for each in (live, *live.partitions))
    if virtual and full and catalog.server_version >= GENERATED_ARE_PUBLISHED:
        yield (
            f"{table.name}: replica identity is FULL, and with the virtual generated columns "
            f"{', '.join(virtual)} Postgres refuses every update and delete of a published row; "
            "make them anew as GENERATED ALWAYS AS (…) STORED, or name a narrower replica identity"
        )


def _narrow(table: TableMapping, root: LiveTable, live: LiveTable) -> Iterator[str]:
    if live.replica_identity == FULL:
        return
    needed = {table.key, table.workspace or table.key} & live.columns.keys()
    missing = sorted(needed - live.identity_columns)
    large = sorted(
        name for name in table.used_columns if name in live.columns and live.columns[name].can_toast
    )
    if missing or large:
        lost = " and ".join(
            part
            for part in (
                f"the old {', '.join(missing)}" if missing else "",
                f"unchanged large values of {', '.join(large)}" if large else "",
            )
            if part
        )
        which = "" if live is root else f" of its partition {live.name}"
        yield (
            f"{table.name}: replica identity{which} is {_IDENTITIES.get(live.replica_identity, '?')}, "
            f"and the WAL leaves out {lost}; run: ALTER TABLE {live.sql_name} REPLICA IDENTITY FULL"
        )
