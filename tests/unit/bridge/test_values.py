"""Single values: what each type becomes, and what is refused."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor as Field

from bridge import values
from bridge.values import Unconvertible, converter
from protos.models.v1.note_pb2 import Note


def field(kind: int, label: int = 1, type_name: str = "") -> Field:
    """A field of a protobuf type."""
    file = descriptor_pb2.FileDescriptorProto(
        name="f.proto", package="f", syntax="proto3", dependency=[timestamp_pb2.DESCRIPTOR.name]
    )
    file.message_type.add(name="M").field.add(
        name="x",
        number=1,
        type=kind,
        label=label,
        type_name=type_name or None,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("f.M").fields_by_name["x"]


STRING = field(Field.TYPE_STRING)
INT64 = field(Field.TYPE_INT64)
TIMESTAMP = field(Field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp")
METADATA = Note.DESCRIPTOR.fields_by_name["metadata"]


@pytest.mark.parametrize(
    ("type_oid", "into", "text", "value"),
    [
        (values.TEXT, STRING, "", ""),
        (values.NUMERIC, STRING, "1.50", "1.50"),
        (values.DATE, STRING, "0044-03-15 BC", "0044-03-15 BC"),
        (123456, STRING, "an enum, say", "an enum, say"),
        (values.INT8, INT64, "-9223372036854775808", values.INT64_MIN),
        (values.INT2, field(Field.TYPE_SINT32), "-32768", -32768),
        (values.INT4, field(Field.TYPE_UINT32), "2147483647", 2147483647),
        (values.INT8, field(Field.TYPE_FIXED64), "9223372036854775807", values.INT64_MAX),
        (values.BOOL, field(Field.TYPE_BOOL), "t", True),
        (values.BOOL, field(Field.TYPE_BOOL), "f", False),
        (values.FLOAT8, field(Field.TYPE_DOUBLE), "-Infinity", -math.inf),
        (values.FLOAT8, field(Field.TYPE_DOUBLE), "1e-300", 1e-300),
        (values.FLOAT4, field(Field.TYPE_FLOAT), "0.1", 0.1),
        (values.BYTEA, field(Field.TYPE_BYTES), "\\x00ff", b"\x00\xff"),
        (values.BYTEA, field(Field.TYPE_BYTES), "\\x", b""),
        (values.TIMESTAMPTZ, INT64, "1970-01-01 00:00:00+00", 0),
        (values.TIMESTAMPTZ, INT64, "2026-01-02 03:04:05.123456+00", 1767323045123456),
        (values.TIMESTAMPTZ, INT64, "2026-01-02 03:04:05.1+00", 1767323045100000),
        (values.TIMESTAMPTZ, INT64, "2026-01-02 08:34:05.1+05:30", 1767323045100000),
        (values.TIMESTAMPTZ, INT64, "1969-12-31 23:59:59.999999+00", -1),
        (values.TIMESTAMPTZ, INT64, "1969-12-31 23:59:59-00:00:01", 0),
        (values.TIMESTAMP, INT64, "2026-01-02 03:04:05.123456", 1767323045123456),
        (values.TIMESTAMPTZ, INT64, "10000-01-01 00:00:00+00", 253402300800000000),
        (values.TIMESTAMPTZ, INT64, "0001-01-01 00:00:00+00 BC", -62167219200000000),
        (values.TIMESTAMPTZ, INT64, "4714-11-24 00:00:00+00 BC", -210866803200000000),
        (values.TIMESTAMPTZ, INT64, "294247-01-10 04:00:54.775806+00", values.INT64_MAX - 1),
        (values.TIMESTAMPTZ, INT64, "infinity", values.INT64_MAX),
        (values.TIMESTAMPTZ, INT64, "-infinity", values.INT64_MIN),
        (values.TIMESTAMPTZ, TIMESTAMP, "1969-12-31 23:59:59.5+00", timestamp_pb2.Timestamp(seconds=-1, nanos=500000000)),
        (values.JSONB, METADATA, "{}", {}),
        (values.JSONB, METADATA, '{"a": "b", "c": "\\u00e9\\n"}', {"a": "b", "c": "é\n"}),
        (values.JSONB, METADATA, '{"n": 1.50, "big": 12345678901234567890123, "z": null, "t": true}',
         {"n": "1.50", "big": "12345678901234567890123", "z": "null", "t": "true"}),
        (values.JSONB, METADATA, '{"l": [1, "}"], "o": {"x": {"y": "\\""}}, "s": "s"}',
         {"l": '[1, "}"]', "o": '{"x": {"y": "\\""}}', "s": "s"}),
        (values.JSON, METADATA, ' {\n "a" : 1 ,"a":\t"2", "b":{ } } ', {"a": "2", "b": "{ }"}),
        (values.JSONB, METADATA, '{"n": ' + "9" * 5000 + "}", {"n": "9" * 5000}),
        (values.JSONB, METADATA, '{"d": ' + "[" * 1500 + "]" * 1500 + ', "e": "f"}', None),
    ],
)  # fmt: skip
def test_a_text_becomes_a_value(type_oid: int, into: Field, text: str, value: object) -> None:
    convert = converter(type_oid, into)
    if value is None:  # deeper than some interpreters read: whole, or refused in this one way
        with suppress(ValueError):
            assert convert(text) == {"d": text[6:3006], "e": "f"}
        return
    converted = convert(text)
    assert converted == value
    assert type(converted) is type(value)


def test_nan() -> None:
    converted = converter(values.FLOAT8, field(Field.TYPE_DOUBLE))("NaN")
    assert isinstance(converted, float)
    assert math.isnan(converted)


@pytest.mark.parametrize(
    ("type_oid", "into", "text", "reason"),
    [
        (values.TIMESTAMPTZ, INT64, "294247-01-10 04:00:54.775807+00", "past the greatest int64"),
        (values.TIMESTAMPTZ, INT64, "294276-12-31 23:59:59.999999+00", "past the greatest int64"),
        (values.TIMESTAMPTZ, INT64, "Fri Jan 02 03:04:05 2026 UTC", "no time in ISO form"),
        (values.TIMESTAMPTZ, TIMESTAMP, "infinity", "cannot hold infinity"),
        (values.TIMESTAMPTZ, TIMESTAMP, "10000-01-01 00:00:00+00", "years 1 and 9999"),
        (values.TIMESTAMPTZ, TIMESTAMP, "0001-12-31 00:00:00+00 BC", "years 1 and 9999"),
        (values.INT4, field(Field.TYPE_UINT32), "-1", "negative"),
        (values.BYTEA, field(Field.TYPE_BYTES), "\\000", "hex"),
        (values.BOOL, field(Field.TYPE_BOOL), "true", "no boolean"),
        (values.JSONB, METADATA, "[]", "no object"),
        (values.JSONB, METADATA, '"text"', "no object"),
        (values.JSONB, METADATA, "null", "no object"),
        (values.JSONB, METADATA, '{"a": ', "JSON"),
    ],
)
def test_a_text_that_the_field_cannot_hold(type_oid: int, into: Field, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        converter(type_oid, into)(text)


@pytest.mark.parametrize(
    ("type_oid", "into", "accepted"),
    [
        (values.INT4, STRING, "a text, varchar or uuid"),
        (values.BOOL, STRING, "a text, varchar or uuid"),
        (values.TEXT, INT64, "a bigint, integer, smallint, timestamptz or timestamp"),
        (values.INT8, field(Field.TYPE_INT32), "an integer or smallint"),
        (values.FLOAT8, field(Field.TYPE_FLOAT), "a real"),
        (values.NUMERIC, field(Field.TYPE_DOUBLE), "a double precision"),
        (values.TEXT, METADATA, "a jsonb or json"),
        (values.DATE, TIMESTAMP, "a timestamptz"),
        (values.TEXT, field(Field.TYPE_STRING, label=3), "an array"),
        (values.TEXT, field(Field.TYPE_MESSAGE, type_name=".f.M"), "a composite"),
    ],
)
def test_a_type_that_never_fits(type_oid: int, into: Field, accepted: str) -> None:
    with pytest.raises(Unconvertible) as raised:
        converter(type_oid, into)
    assert accepted in raised.value.accepted
