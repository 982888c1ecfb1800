"""A version of a table as the WAL has it, held against the mapping that was checked on another.

The WAL between the slot and now holds rows of every version that a table went through, and
each is read under its own. A column that a version lacks is one that came later, if the row
is from before the check, and one that went, if it is from after. A type that changed is read
as what it is there, as long as the field can hold it. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor

from bridge import values
from bridge.change import Column, Relation
from bridge.fit import FittedColumn, FittedTable
from bridge.pgtype import PgType


@dataclass(frozen=True, slots=True)
class Version:
    """How rows of a relation version are read: ``converters`` by column; a mapped column that is
    not in it did not exist then, and is in ``absent``. ``mismatches`` says why it cannot be read,
    one line each."""

    converters: dict[str, values.Converter]
    mismatches: tuple[str, ...]
    absent: tuple[str, ...] = ()


def version_of(table: FittedTable, relation: Relation, is_older: bool) -> Version:
    """Holds a relation against a table; ``is_older`` says that its rows are from before the check."""
    live = {column.name: column for column in relation.columns}
    mapping = table.mapping
    converters: dict[str, values.Converter] = {}
    found: list[str] = []
    for name in (mapping.key, *((mapping.workspace,) if mapping.workspace else ())):
        column = live.get(name)
        if column is None:
            found.append(_lacks(mapping.name, name))
        elif relation.replica_identity != "f" and not column.is_key:
            found.append(
                f"{mapping.name}.{name}: old rows in the WAL lack the column; "
                f"run: ALTER TABLE {mapping.name} REPLICA IDENTITY FULL"
            )
    for name, field_name in mapping.columns:
        column = live.get(name)
        fitted = table.columns[name]
        field = mapping.message.fields_by_name[field_name]
        if column is None:
            if not is_older and _lacks(mapping.name, name) not in found:
                found.append(_lacks(mapping.name, name))
            continue
        try:
            converters[name] = _converter(fitted, column, field)
        except values.Unconvertible as exc:
            found.append(
                f"{mapping.name}.{name}: rows in the WAL are of another type (oid {column.type_oid}) than the "
                f"{fitted.type_text} that was checked, and cannot become {values.field_type(field)} "
                f"{mapping.message.name}.{field_name}; map {exc.accepted} column, or take it out of the mapping"
            )
    absent = tuple(name for name, _ in mapping.columns if name not in live)
    return Version(converters, tuple(found), absent)


def _converter(fitted: FittedColumn, column: Column, field: FieldDescriptor) -> values.Converter:
    if column.type_oid == fitted.type_oid:
        return fitted.converter(field)
    # Of a type that an installation made nothing but its OID is known here: it is text.
    return values.converter(PgType(column.type_oid), field)


def _lacks(table: str, column: str) -> str:
    return f"{table}.{column}: rows in the WAL lack the column; add it again, or take it out of the mapping"
