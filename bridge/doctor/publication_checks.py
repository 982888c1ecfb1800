"""Mapping, schema and publication: are the rows that reach the stream whole, and all of them?

The mapping is held against the schema by ``bridge.fit``, as at the bridge's start. What that
start mends by itself, a table that the publication lacks, is found here before it is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bridge.catalog import Catalog, LiveTable
from bridge.doctor.finding import Finding, broken, note, ok, unsafe
from bridge.doctor.source import PublicationFacts, SourceFacts
from bridge.fit import mismatches
from bridge.mapping import Mapping
from bridge.publication import WITH_GENERATED, creation_of, has_generated
from bridge.settings import BridgeSettings

_NEW_EPOCH = "zephyr bridge new-epoch"
_NO_CHANGES = "changes of these tables do not reach the stream"


def check_fit(facts: SourceFacts, mapping: Mapping) -> Iterator[Finding]:
    """Every mismatch of mapping, live schema and messages, replica identity among them."""
    found = mismatches(mapping, _without_own_checks(facts.catalog))
    for line in found:
        what, _, mend = line.partition("; ")
        yield broken(
            "postgres.mapping", what, "a row would stop the bridge, or reach the stream in part", mend
        )
    if not found:
        count = len(mapping.tables)
        yield ok(
            "postgres.mapping",
            f"the {count} mapped tables fit, and their replica identities cover what is routed and large",
        )


def check_publication(facts: SourceFacts, mapping: Mapping, settings: BridgeSettings) -> Iterator[Finding]:
    """Whether the publication is there, older than the slot, and has exactly what is mapped."""
    publication = facts.publication
    wanted = sorted(mapping.tables)
    if publication is None:
        yield from _missing(facts, wanted, settings)
        return
    fits = True
    for finding in _contents(publication, facts, wanted, settings):
        fits = False
        yield finding
    if fits:
        yield ok(
            "postgres.publication",
            f"the publication {settings.publication!r} has the mapped tables, every operation, via the root",
        )
    yield from _order(publication, facts, settings)


def _missing(facts: SourceFacts, wanted: list[str], settings: BridgeSettings) -> Iterator[Finding]:
    name = settings.publication
    if facts.slot is not None:
        yield broken(
            "postgres.publication",
            f"there is a slot {settings.slot!r}, and no publication {name!r}",
            "changes since it went are passed over in silence",
            f"run: {_NEW_EPOCH}",
        )
    elif facts.foreign_tables or not facts.may_create:
        lacks = [f"does not own {', '.join(facts.foreign_tables)}"] if facts.foreign_tables else []
        lacks += [] if facts.may_create else [f"may not create in the database {facts.database}"]
        yield broken(
            "postgres.publication",
            f"there is no publication {name!r}, and the role {facts.role} {' and '.join(lacks)}",
            "the bridge cannot make it",
            f"as an owner of the tables run: {_create(name, wanted, facts)}",
        )
    else:
        yield ok("postgres.publication", f"there is no publication {name!r} yet; the bridge makes it")


def _contents(
    publication: PublicationFacts, facts: SourceFacts, wanted: list[str], settings: BridgeSettings
) -> Iterator[Finding]:
    name = settings.publication
    live = facts.catalog.publication
    if live is not None and not (live.every_operation and publication.via_root):
        what = (
            "leaves out operations" if not live.every_operation else "names partitions instead of their root"
        )
        yield broken(
            "postgres.publication",
            f"the publication {name!r} {what}",
            "changes are lost or come under another table's name, and the bridge does not start so",
            f"run: ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate',"
            " publish_via_partition_root = true)",
        )
    tables = facts.catalog.tables.values() if has_generated(facts.catalog) else ()
    if refused := [table.name for table in tables if _leaves_out_generated(table)]:
        yield broken(
            "postgres.publication",
            f"the publication {name!r} leaves out the generated columns of {', '.join(sorted(refused))}",
            "with REPLICA IDENTITY FULL Postgres refuses each update and delete of the table",
            f"run: ALTER PUBLICATION {name} SET ({WITH_GENERATED})",
        )
    missing = sorted(set(wanted) - set(publication.tables))
    set_tables = f"ALTER PUBLICATION {name} SET TABLE {', '.join(wanted)}"
    if missing:
        yield unsafe(
            "postgres.publication",
            f"the publication {name!r} lacks {', '.join(missing)}",
            _NO_CHANGES,
            f"start the bridge again: it adds them; or run: {set_tables}"
            if publication.is_ours
            else f"as its owner run: {set_tables}",
        )
    extra = sorted(set(publication.tables) - set(wanted))
    if extra:
        shown = ", ".join(extra[:5]) + (f" and {len(extra) - 5} more" if len(extra) > 5 else "")
        all_tables = live is not None and live.all_tables
        yield note(
            "postgres.publication",
            f"the publication {name!r} has tables that are not mapped: {shown}",
            "Postgres decodes and sends their changes, and the bridge drops them"
            if all_tables
            else "the bridge takes them out at its next start",
            f"leave it, or map them; a publication of the mapped tables alone costs less: {_create(name, wanted, facts)}"
            if all_tables
            else f"map them, or run: {set_tables}",
        )


def _order(publication: PublicationFacts, facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    check = "postgres.publication_order"
    slot = facts.slot
    if slot is None or slot.catalog_age is None:
        return
    # Ages count transactions: the slot's is that of the oldest catalog it may still decode with. A
    # publication that was written before that was there for all that comes.
    if publication.age > slot.catalog_age:
        yield ok(check, f"the publication {settings.publication!r} is older than what the slot still reads")
    else:
        yield note(
            check,
            f"the publication {settings.publication!r} was made or altered after the oldest change that the slot"
            f" {settings.slot!r} may still read",
            "if it was made anew after the slot, changes from before it are passed over; if only altered,"
            " or made by the bridge with its slot, all is well",
            f"if it was dropped and made anew: {_NEW_EPOCH}; else wait: this goes as the slot moves on",
        )


def _without_own_checks(catalog: Catalog) -> Catalog:
    """The catalog without what has a finding of its own: the level, and tables that are not published yet."""
    tables = {
        name: replace(table, published=frozenset(table.columns)) if table.published is None else table
        for name, table in catalog.tables.items()
    }
    publication = replace(catalog.publication, every_operation=True) if catalog.publication else None
    return replace(catalog, wal_level="logical", tables=tables, publication=publication)


def _leaves_out_generated(table: LiveTable) -> bool:
    if table.published is None or table.replica_identity != "f":
        return False
    left_out = [column for name, column in table.columns.items() if name not in table.published]
    # Others that are left out as well are a list of columns, which the mapping's check names.
    return bool(left_out) and all(column.generated == "s" for column in left_out)


def _create(name: str, tables: list[str], facts: SourceFacts) -> str:
    return creation_of(name, tables, generated=has_generated(facts.catalog))
