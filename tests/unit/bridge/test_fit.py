"""Mapping and schema held against each other, on schemas that are plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge import values
from bridge.catalog import Catalog, LiveColumn, LiveTable, Publication
from bridge.errors import MappingMismatch
from bridge.fit import fitted, mismatches
from bridge.mapping import Mapping, load_mapping
from bridge.pgtype import PgType

TYPES = {values.UUID: "uuid", values.TEXT: "text", values.INT8: "bigint", values.INT4: "integer"} | {
    values.TIMESTAMPTZ: "timestamp with time zone",
    values.JSONB: "jsonb",
}
NOTES = {
    "id": values.UUID,
    "workspace_id": values.UUID,
    "author_id": values.UUID,
    "title": values.TEXT,
    "body": values.TEXT,
    "metadata": values.JSONB,
    "version": values.INT8,
    "created_at": values.TIMESTAMPTZ,
    "updated_at": values.TIMESTAMPTZ,
}


def column(name: str, oid: int) -> LiveColumn:
    return LiveColumn(
        name=name,
        sql_name=name,
        type_oid=oid,
        base=PgType(oid, TYPES[oid]),
        type_text=TYPES[oid],
        type_modifier=-1,
        nullable=False,
        generated="",
        can_toast=oid in (values.TEXT, values.JSONB),
    )


def notes_table() -> LiveTable:
    return LiveTable(
        oid=1,
        schema="public",
        table="notes",
        sql_name="public.notes",
        kind="r",
        persistence="p",
        replica_identity="f",
        columns={name: column(name, oid) for name, oid in NOTES.items()},
        identity_columns=frozenset(),
        unique_columns=frozenset({"id"}),
        published=None,
        filtered=False,
    )


def notes_mapping() -> Mapping:
    whole = load_mapping()
    return Mapping("mapping.toml", {"public.notes": whole.tables["public.notes"]})


def catalog(table: LiveTable, wal_level: str = "logical", publication: Publication | None = None) -> Catalog:
    return Catalog(wal_level, {table.name: table}, publication)


def with_column(name: str, oid: int, **changes: object) -> Callable[[LiveTable], LiveTable]:
    def change(table: LiveTable) -> LiveTable:
        return replace(
            table,
            columns={**table.columns, name: replace(column(name, oid), **changes)},  # type: ignore[arg-type]
        )

    return change


def without_column(name: str) -> Callable[[LiveTable], LiveTable]:
    def change(table: LiveTable) -> LiveTable:
        return replace(table, columns={key: value for key, value in table.columns.items() if key != name})

    return change


def test_what_fits() -> None:
    assert mismatches(notes_mapping(), catalog(notes_table())) == []
    table = fitted(notes_mapping(), catalog(notes_table())).tables["public.notes"]
    assert {name: found.base_oid for name, found in table.columns.items()} == NOTES


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (with_column("title", values.INT4),
         "public.notes.title: integer cannot become string Note.title; map a text, varchar or uuid column"),
        (with_column("metadata", values.TEXT),
         "public.notes.metadata: text cannot become map<string, string> Note.metadata; map a jsonb or json column"),
        (with_column("version", values.TEXT),
         "public.notes.version: text cannot become int64 Note.version; "
         "map a bigint, integer, smallint, timestamptz or timestamp column"),
        (with_column("title", values.TEXT, generated="v"),
         "public.notes.title: is a virtual generated column, which is not in the WAL; "
         "make it anew as GENERATED ALWAYS AS (…) STORED, or take it out of the mapping"),
        (with_column("score", values.INT8, generated="v"),
         "public.notes: replica identity is FULL, and with the virtual generated columns score Postgres refuses "
         "every update and delete of a published row; make them anew as GENERATED ALWAYS AS (…) STORED, "
         "or name a narrower replica identity"),
        (without_column("body"),
         "public.notes.body: there is no such column; add it, or take it out of the mapping"),
        (with_column("workspace_id", values.UUID, nullable=True),
         "public.notes.workspace_id: the routing column can be NULL; "
         "run: ALTER TABLE public.notes ALTER COLUMN workspace_id SET NOT NULL"),
        (with_column("id", values.TIMESTAMPTZ),
         "public.notes.id: timestamp with time zone cannot be the key, since it is no part of a subject; "
         "name a uuid, bigint, integer, text or varchar column"),
        (lambda table: replace(table, unique_columns=frozenset()),
         "public.notes.id: is the key of the mapping, and neither the primary key nor unique; "
         "run: ALTER TABLE public.notes ADD UNIQUE (id), or name another key"),
        (lambda table: replace(table, replica_identity="d", identity_columns=frozenset({"id"})),
         "public.notes: replica identity is DEFAULT, and the WAL leaves out the old workspace_id and unchanged "
         "large values of body, metadata, title; run: ALTER TABLE public.notes REPLICA IDENTITY FULL"),
        (lambda table: replace(table, kind="v"),
         "public.notes: is a view, which cannot be mapped; map an ordinary, logged table, "
         "or take it out of mapping.toml"),
        (lambda table: replace(table, persistence="u"),
         "public.notes: is an unlogged or temporary table, which cannot be mapped; "
         "map an ordinary, logged table, or take it out of mapping.toml"),
    ],
)  # fmt: skip
def test_a_mismatch_and_its_mend(change: Callable[[LiveTable], LiveTable], line: str) -> None:
    assert line in mismatches(notes_mapping(), catalog(change(notes_table())))


def test_a_narrow_identity_is_enough_for_a_table_without_large_columns() -> None:
    table = notes_table()
    small = replace(
        table,
        replica_identity="i",
        identity_columns=frozenset({"id", "workspace_id"}),
        columns={name: replace(each, can_toast=False) for name, each in table.columns.items()},
    )
    assert mismatches(notes_mapping(), catalog(small)) == []


def test_a_missing_table() -> None:
    assert mismatches(notes_mapping(), Catalog("logical", {}, None)) == [
        "public.notes: there is no such table; run `zephyr migrate` if it is one of Zephyr's, "
        "or take it out of mapping.toml"
    ]


def test_the_wal_level() -> None:
    (line,) = mismatches(notes_mapping(), catalog(notes_table(), wal_level="replica"))
    assert "ALTER SYSTEM SET wal_level = logical; then restart Postgres" in line


def test_a_publication_that_exists() -> None:
    publication = Publication("zephyr", all_tables=False, every_operation=True)
    (line,) = mismatches(notes_mapping(), catalog(notes_table(), publication=publication))
    assert line.endswith("run: ALTER PUBLICATION zephyr ADD TABLE public.notes")
    published = replace(notes_table(), published=frozenset(NOTES))
    assert mismatches(notes_mapping(), catalog(published, publication=publication)) == []
    narrow = replace(notes_table(), published=frozenset(NOTES) - {"body"})
    (line,) = mismatches(notes_mapping(), catalog(narrow, publication=publication))
    assert "leaves out body" in line
    (line,) = mismatches(
        notes_mapping(), catalog(published, publication=replace(publication, every_operation=False))
    )
    assert "leaves out operations" in line


def test_the_error_says_all_at_once() -> None:
    table = replace(without_column("body")(with_column("title", values.INT4)(notes_table())))
    error = MappingMismatch(mismatches(notes_mapping(), catalog(table, wal_level="replica")))
    assert len(error.mismatches) == 3
    assert error.exit_code == 4
