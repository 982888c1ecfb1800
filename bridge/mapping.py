"""The declared mapping: which table and column becomes which kind of event and field.

A TOML file says it, so that it can be read and reviewed beside the schema; the default one
is ``mapping.toml`` here. Loading checks all that can be known without a database: names,
kinds, messages and their fields. What it is held against the live schema for is in ``fit``.
``docs/mapping.md`` describes the file to its writers.
"""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from bridge.errors import SettingInvalid
from protos.events.v1 import event_pb2
from protos.events.v1 import stream_format as fmt

# Imported for what they add to the protobuf pool.
MODEL_MODULES = (
    "protos.models.v1.membership_pb2",
    "protos.models.v1.note_pb2",
    "protos.models.v1.user_pb2",
    "protos.models.v1.workspace_pb2",
)
MEND = "correct the mapping file (docs/mapping.md describes it)"

_TABLE_KEYS = {"kind", "message", "key", "workspace", "columns"}


@dataclass(frozen=True, slots=True)
class TableMapping:
    """One table. ``columns`` has pairs of column and field, in the file's order.

    ``workspace`` is the routing column; None when the table's rows belong to no workspace.
    ``envelope_field`` is the field of ``Event`` that holds the message.
    """

    schema: str
    table: str
    kind: str
    key: str
    workspace: str | None
    columns: tuple[tuple[str, str], ...]
    message: Descriptor
    envelope_field: str

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def used_columns(self) -> tuple[str, ...]:
        """Every column that the bridge reads, each once."""
        routing = (self.key,) if self.workspace is None else (self.key, self.workspace)
        return tuple(dict.fromkeys((*routing, *(column for column, _ in self.columns))))


@dataclass(frozen=True, slots=True)
class Mapping:
    """All mapped tables, by ``schema.table``. ``origin`` is the file that said so."""

    origin: str
    tables: dict[str, TableMapping]


def load_mapping(path: Path | None = None) -> Mapping:
    """Reads a mapping file; without a path, the one of Zephyr's own tables.

    Raises:
        SettingInvalid: the file cannot be read, is no TOML, or declares what cannot be;
            names the line or the key.
    """
    origin = str(path) if path is not None else "bridge/mapping.toml"
    try:
        file = path if path is not None else resources.files("bridge").joinpath("mapping.toml")
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingInvalid(
            f"{origin}: the mapping file cannot be read: {exc.strerror or exc}",
            "set ZEPHYR_MAPPING to a file that exists, or leave it unset for Zephyr's own tables",
        ) from exc
    except ValueError as exc:  # malformed TOML (its message has line and column), or not UTF-8
        raise SettingInvalid(f"{origin}: malformed: {exc}", MEND) from exc
    return _Reader(origin, document).mapping()


class _Reader:
    """Turns the parsed document into a mapping; every complaint names the key it is about."""

    def __init__(self, origin: str, document: dict[str, Any]) -> None:
        self._origin = origin
        self._document = document

    def mapping(self) -> Mapping:
        self._only(self._document, {"modules", "tables"}, "")
        self._import_modules()
        tables = self._document.get("tables")
        if not isinstance(tables, dict) or not tables:
            raise self._error("tables", 'declares no table: write [tables."schema.table"]')
        mapped = {name: self._table(name, given) for name, given in tables.items()}
        by_kind: dict[str, str] = {}
        for table in mapped.values():
            other = by_kind.setdefault(table.kind, table.name)
            if other != table.name:
                key = f'tables."{table.name}".kind'
                raise self._error(key, f'"{table.kind}" is the kind of {other} already')
        return Mapping(self._origin, mapped)

    def _import_modules(self) -> None:
        modules = self._document.get("modules", [])
        if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
            raise self._error("modules", 'must be a list of Python modules, such as ["acme.models_pb2"]')
        for name in (*MODEL_MODULES, *modules):
            try:
                importlib.import_module(name)
            except Exception as exc:  # whatever a module of the user's raises, its name is what helps
                raise self._error("modules", f'"{name}" cannot be imported: {exc}') from exc

    def _table(self, name: str, given: Any) -> TableMapping:
        at = f'tables."{name}"'
        schema, dot, table = name.partition(".")
        if not (schema and dot and table):
            raise self._error(at, f'write schema and table, such as "public.{name.strip(".")}"')
        if not isinstance(given, dict):
            raise self._error(at, "must be a table of keys")
        self._only(given, _TABLE_KEYS, f"{at}.")
        kind = self._text(given, "kind", at)
        if not fmt.is_token(kind) or kind == fmt.NONE:
            raise self._error(f"{at}.kind", f'"{kind}" is no kind: use letters, digits, - and _')
        message = self._message(self._text(given, "message", at), f"{at}.message")
        return TableMapping(
            schema=schema,
            table=table,
            kind=kind,
            key=self._text(given, "key", at),
            workspace=self._text(given, "workspace", at) if "workspace" in given else None,
            columns=self._columns(given.get("columns"), message, f"{at}.columns"),
            message=message,
            envelope_field=_envelope_field(message),
        )

    def _message(self, name: str, at: str) -> Descriptor:
        try:
            return descriptor_pool.Default().FindMessageTypeByName(name)
        except KeyError as exc:
            raise self._error(
                at, f'there is no message "{name}"; name its Python module in `modules` if it is your own'
            ) from exc

    def _columns(self, given: Any, message: Descriptor, at: str) -> tuple[tuple[str, str], ...]:
        if not isinstance(given, dict) or not given:
            raise self._error(at, 'declares no column: write column = "field"')
        by_field: dict[str, str] = {}
        for column, field in given.items():
            if not isinstance(field, str):
                raise self._error(f"{at}.{column}", "must be the name of a field in quotes")
            if field not in message.fields_by_name:
                known = ", ".join(field.name for field in message.fields)
                raise self._error(
                    f"{at}.{column}", f'{message.full_name} has no field "{field}" (it has {known})'
                )
            if field in by_field:
                raise self._error(f"{at}.{column}", f'"{field}" is filled from {by_field[field]} already')
            by_field[field] = column
            rivals = rivals_of(message.fields_by_name[field]) & by_field.keys()
            if rivals:
                raise self._error(
                    f"{at}.{column}",
                    f'"{field}" and "{rivals.pop()}" are of one oneof: a row would lose one of them',
                )
        return tuple(given.items())

    def _text(self, given: dict[str, Any], key: str, at: str) -> str:
        value = given.get(key)
        if not isinstance(value, str) or not value:
            raise self._error(f"{at}.{key}", "must be a text" if key in given else "is missing")
        return value

    def _only(self, given: dict[str, Any], known: set[str], at: str) -> None:
        for key in given:
            if key not in known:
                raise self._error(f"{at}{key}", f"is not known here (known: {', '.join(sorted(known))})")

    def _error(self, key: str, complaint: str) -> SettingInvalid:
        return SettingInvalid(f"{self._origin}: {key}: {complaint}", MEND)


def rivals_of(field: FieldDescriptor) -> set[str]:
    """The other fields of its oneof: of all of them a message has at most one."""
    oneof = field.containing_oneof
    return {other.name for other in oneof.fields} - {field.name} if oneof is not None else set()


def _envelope_field(message: Descriptor) -> str:
    data = event_pb2.Event.DESCRIPTOR.oneofs_by_name["data"]
    for field in data.fields:
        if field.message_type is not None and field.message_type.full_name == message.full_name:
            return field.name
    return "other"
