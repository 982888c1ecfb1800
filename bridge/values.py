"""Postgres' text format to protobuf values, one converter a column.

A converter is chosen once a relation version by the column's type and the field, and is
then called for every row: it does no I/O, and no row changes it. Whatever a text cannot become
is a ``ValueError`` that says why; what a type can never become is known before any row is
read (``Unconvertible``). The formats are those of a session with ``DateStyle=ISO`` and
``bytea_output=hex``. Times are in ``times``, JSON is in ``json_text``, enums are in ``labels``,
and the texts of arrays and composites come apart in ``literals``.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bridge import labels, literals
from bridge.json_text import text_map
from bridge.mapping import rivals_of
from bridge.pgtype import (
    BOOL,
    BPCHAR,
    BYTEA,
    COMPOSITE,
    DATE,
    ENUM,
    FLOAT4,
    FLOAT8,
    INT2,
    INT4,
    INT8,
    JSON,
    JSONB,
    NAME,
    NUMERIC,
    OID,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    VARCHAR,
    PgType,
)
from bridge.times import INT64_MAX, INT64_MIN, timestamp, unix_us
from protos.common.v1.postgres_value_pb2 import PostgresValue

# The types and converters that others name through this module.
__all__ = [
    "BOOL", "BPCHAR", "BYTEA", "DATE", "FLOAT4", "FLOAT8", "INT2", "INT4", "INT8", "INT64_MAX", "INT64_MIN",
    "JSON", "JSONB", "NAME", "NUMERIC", "OID", "TEXT", "TIMESTAMP", "TIMESTAMPTZ", "UUID", "VARCHAR",
    "Converter", "PgType", "Unconvertible", "binary", "boolean", "converter", "text", "text_map",
    "timestamp", "unix_us", "unsigned",
]  # fmt: skip

Converter = Callable[[str], object]


class Unconvertible(Exception):
    """No value of the type can become the field; ``accepted`` names the types that can.

    Where the type would do and a part of it does not, ``reason`` says which, and ``mend`` what helps.
    """

    def __init__(self, accepted: str = "", reason: str = "", mend: str = "") -> None:
        super().__init__(reason or accepted)
        self.accepted = accepted
        self.reason = reason
        self.mend = mend


def converter(pg_type: PgType | int, field: Field) -> Converter:
    """What turns a text of the type (a domain's base type) into a value of ``field``.

    A type that is given by its OID alone has no structure: no array, enum or composite.
    The converter raises ValueError for a text that the field cannot hold.

    Raises:
        Unconvertible: there is none.
    """
    given = PgType(pg_type) if isinstance(pg_type, int) else pg_type
    if not field.is_repeated:
        return _single(given, field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map(given, field.message_type)
    if given.element is None:
        raise Unconvertible("an array, and for map<string, string> a jsonb or json")
    return _array(_single(given.element, field), given.delimiter)


def field_type(field: Field) -> str:
    """A field's type as a proto file writes it."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = (field_type(message.fields_by_name[part]) for part in ("key", "value"))
        return f"map<{key}, {value}>"
    if message is not None:
        name = message.full_name
    elif field.enum_type is not None:
        name = field.enum_type.full_name
    else:
        name = _TYPE_NAMES[field.type]
    return f"repeated {name}" if field.is_repeated else name


def text(value: str) -> str:
    """The text as it is."""
    return value


def boolean(value: str) -> bool:
    """``t`` or ``f``."""
    if value == "t":
        return True
    if value == "f":
        return False
    raise ValueError(f"{value!r} is no boolean")


def unsigned(value: str) -> int:
    """An integer that is not negative."""
    number = int(value)
    if number < 0:
        raise ValueError("a negative number does not fit an unsigned field")
    return number


def binary(value: str) -> bytes:
    """bytea in its hex form."""
    if not value.startswith("\\x"):
        raise ValueError("bytea is not in hex form: set bytea_output = 'hex'")
    return bytes.fromhex(value[2:])


def _single(given: PgType, field: Field) -> Converter:
    """The converter to one value of the field, repeated or not."""
    if field.message_type is not None:
        return _message(given, field.message_type)
    if field.enum_type is not None:
        if given.kind != ENUM:
            raise Unconvertible("an enum")
        unnamed = labels.mismatch(given.labels, field.enum_type)
        if unnamed is not None:
            raise Unconvertible(reason=unnamed, mend=f"give {field.enum_type.name} a value for each label")
        return labels.converter(field.enum_type)
    if field.type == Field.TYPE_STRING:
        # Types that protobuf has a type of its own for are not turned into text unasked.
        if given.oid in _TYPED:
            raise Unconvertible("a text, varchar or uuid")
        return text
    types, accepted = _SCALARS[field.type]
    return _pick(given.oid, types, accepted)


def _message(given: PgType, message: Descriptor) -> Converter:
    name = message.full_name
    if name == Timestamp.DESCRIPTOR.full_name:
        return _pick(given.oid, {TIMESTAMPTZ: timestamp, TIMESTAMP: timestamp}, "a timestamptz or timestamp")
    if name == PostgresValue.DESCRIPTOR.full_name:
        return _with_type(given)
    if given.kind != COMPOSITE:
        raise Unconvertible("a composite")
    return _composite(given, message)


def _with_type(given: PgType) -> Converter:
    def convert(value: str) -> PostgresValue:
        return PostgresValue(type_oid=given.oid, type_name=given.name, text=value)

    return convert


def _array(single: Converter, delimiter: str) -> Converter:
    def convert(value: str) -> list[object]:
        found: list[object] = []
        for number, item in enumerate(literals.array(value, delimiter), 1):
            if item is None:
                raise ValueError(f"element {number} is NULL, which a repeated field cannot hold")
            found.append(single(item))
        return found

    return convert


def _composite(given: PgType, descriptor: Descriptor) -> Converter:
    parts: list[tuple[str, Converter]] = []
    for name, part in given.attributes:
        inner = descriptor.fields_by_name.get(name)
        if inner is None:
            raise Unconvertible(
                reason=f"{descriptor.name} has no field for its attribute {name}", mend="add the field"
            )
        rivals = rivals_of(inner) & {attribute for attribute, _ in given.attributes}
        if rivals:
            raise Unconvertible(
                reason=f"{descriptor.name} has its attributes {name} and {min(rivals)} in one oneof",
                mend="take the fields out of the oneof",
            )
        try:
            parts.append((name, converter(part, inner)))
        except Unconvertible as exc:
            reason = exc.reason or f"no {exc.accepted.partition(' ')[2]}"
            raise Unconvertible(
                reason=f"its attribute {name}, {part.name}, cannot become {field_type(inner)} "
                f"{descriptor.name}.{name} ({reason})",
                mend=exc.mend or "change the field",
            ) from exc
    message = message_factory.GetMessageClass(descriptor)

    def convert(value: str) -> Message:
        found = literals.composite(value) if parts or value != "()" else []
        if len(found) != len(parts):
            raise ValueError(
                f"the composite has {len(found)} attributes, not the {len(parts)} that were checked"
            )
        fields: dict[str, object] = {}
        for (name, convert_part), item in zip(parts, found, strict=True):
            if item is not None:
                try:
                    fields[name] = convert_part(item)
                except ValueError as exc:
                    raise ValueError(f"{name}: {exc}") from exc
        return message(**fields)

    return convert


def _map(given: PgType, entry: Descriptor) -> Converter:
    if any(part.type != Field.TYPE_STRING for part in entry.fields):
        raise Unconvertible(reason="of maps only map<string, string> can be filled", mend="change the field")
    return _pick(given.oid, {JSONB: text_map, JSON: text_map}, "a jsonb or json")


def _pick(type_oid: int, types: dict[int, Converter], accepted: str) -> Converter:
    found = types.get(type_oid)
    if found is None:
        raise Unconvertible(accepted)
    return found


_TYPED = frozenset((BOOL, BYTEA, INT2, INT4, INT8, OID, FLOAT4, FLOAT8))

_INT32: dict[int, Converter] = {INT2: int, INT4: int}
_INT64: dict[int, Converter] = {**_INT32, INT8: int, OID: int, TIMESTAMPTZ: unix_us, TIMESTAMP: unix_us}
_UINT32: dict[int, Converter] = {INT2: unsigned, INT4: unsigned, OID: int}
_UINT64: dict[int, Converter] = {**_UINT32, INT8: unsigned}
_IS_INT32 = (_INT32, "an integer or smallint")
_IS_INT64 = (_INT64, "a bigint, integer, smallint, timestamptz or timestamp")
_IS_UINT32 = (_UINT32, "an integer or smallint")
_IS_UINT64 = (_UINT64, "a bigint, integer or smallint")

# By the field's type: the converters by the column's type, and the types named in an error.
_SCALARS: dict[int, tuple[dict[int, Converter], str]] = {
    Field.TYPE_INT32: _IS_INT32,
    Field.TYPE_SINT32: _IS_INT32,
    Field.TYPE_SFIXED32: _IS_INT32,
    Field.TYPE_INT64: _IS_INT64,
    Field.TYPE_SINT64: _IS_INT64,
    Field.TYPE_SFIXED64: _IS_INT64,
    Field.TYPE_UINT32: _IS_UINT32,
    Field.TYPE_FIXED32: _IS_UINT32,
    Field.TYPE_UINT64: _IS_UINT64,
    Field.TYPE_FIXED64: _IS_UINT64,
    Field.TYPE_BOOL: ({BOOL: boolean}, "a boolean"),
    Field.TYPE_FLOAT: ({FLOAT4: float}, "a real"),
    Field.TYPE_DOUBLE: (
        {FLOAT4: float, FLOAT8: float, INT2: float, INT4: float},
        "a double precision or real",
    ),
    Field.TYPE_BYTES: ({BYTEA: binary}, "a bytea"),
}
_TYPE_NAMES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(Field).items()
    if name.startswith("TYPE_")
}
