"""Postgres' text format to protobuf values, one converter a column.

A converter is chosen once a relation version by the column's type and the field, and is
then called for every row: it holds no state and does no I/O. Whatever a text cannot become
is a ``ValueError`` that says why; what a type can never become is known before any row is
read (``Unconvertible``). The formats are those of a session with ``DateStyle=ISO`` and
``bytea_output=hex``; a time zone offset is honoured whatever it is.

Times are computed by hand: Postgres' years go from 4713 BC to 294276 AD, Python's do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from json import JSONDecoder

import orjson
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.timestamp_pb2 import Timestamp

Converter = Callable[[str], object]

BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID = 16, 17, 19, 20, 21, 23, 25, 26
JSON, FLOAT4, FLOAT8, BPCHAR, VARCHAR = 114, 700, 701, 1042, 1043
DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC, UUID, JSONB = 1082, 1114, 1184, 1700, 2950, 3802

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_UNIX_SECONDS_MIN, _UNIX_SECONDS_MAX = -62_135_596_800, 253_402_300_799  # years 1 and 9999

_TIME = re.compile(
    r"(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
    r"(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?( BC)?\Z"
)
_WHITESPACE = re.compile(r"[ \t\n\r]*")
# Numbers are not computed: only where a value ends is asked of the decoder.
_decode = JSONDecoder(parse_int=str, parse_float=str).raw_decode


class Unconvertible(Exception):
    """No value of the type can become the field; ``accepted`` names the types that can."""

    def __init__(self, accepted: str) -> None:
        super().__init__(accepted)
        self.accepted = accepted


def converter(type_oid: int, field: Field) -> Converter:
    """What turns a text of type ``type_oid`` (a domain's base type) into a value of ``field``.

    The converter raises ValueError for a text that the field cannot hold.

    Raises:
        Unconvertible: there is none.
    """
    if field.is_repeated:
        return _map_converter(type_oid, field)
    if field.message_type is not None:
        if field.message_type.full_name != Timestamp.DESCRIPTOR.full_name:
            raise Unconvertible("only google.protobuf.Timestamp and map<string, string> among messages")
        return _pick(type_oid, {TIMESTAMPTZ: timestamp, TIMESTAMP: timestamp}, "a timestamptz or timestamp")
    if field.type == Field.TYPE_STRING:
        # Types that protobuf has a type of its own for are not turned into text unasked.
        if type_oid in _TYPED:
            raise Unconvertible("a text, varchar or uuid")
        return text
    types, accepted = _SCALARS.get(
        field.type, ({}, "a field of another type: this one cannot be filled from a")
    )
    return _pick(type_oid, types, accepted)


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


@lru_cache(maxsize=1024)  # the rows of one transaction share their times
def unix_us(value: str) -> int:
    """A timestamptz, or a timestamp taken as UTC, as Unix time in microseconds.

    ``infinity`` is the greatest int64 and ``-infinity`` the least.

    Raises:
        ValueError: the time is past the greatest int64 (in the year 294247), or no time.
    """
    # The usual form, with the offset of a session in UTC: 2026-01-02 03:04:05[.123456][+00]
    if value[-3:] == "+00" and value[10:11] == " " and value[13:14] == ":":
        fraction = value[20:-3]
        seconds = int(value[11:13]) * 3600 + int(value[14:16]) * 60 + int(value[17:19])
        us = (_days_of(value[:10]) * 86_400 + seconds) * 1_000_000
        return us + int(fraction.ljust(6, "0")) if fraction else us
    return _unix_us_of_any(value)


def timestamp(value: str) -> Timestamp:
    """A timestamptz, or a timestamp taken as UTC, between the years 1 and 9999."""
    if value in ("infinity", "-infinity"):
        raise ValueError(f"google.protobuf.Timestamp cannot hold {value}")
    seconds, us = divmod(unix_us(value), 1_000_000)
    if not _UNIX_SECONDS_MIN <= seconds <= _UNIX_SECONDS_MAX:
        raise ValueError(f"google.protobuf.Timestamp cannot hold {value}: it ends at the years 1 and 9999")
    return Timestamp(seconds=seconds, nanos=us * 1000)


def text_map(value: str) -> dict[str, str]:
    """A JSON object; a value that is no text stands as its JSON text, to the digit.

    Raises:
        ValueError: the JSON is no object.
    """
    if value == "{}":
        return {}
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _slices(value)  # valid to Postgres all the same: a deep nest, say
    if isinstance(parsed, dict) and all(type(item) is str for item in parsed.values()):
        return parsed
    return _slices(value)


def _slices(value: str) -> dict[str, str]:
    """The members of a JSON object, each value that is no text cut from ``value`` as it stands."""

    def skip(position: int) -> int:
        found = _WHITESPACE.match(value, position)
        return found.end() if found else position

    at = skip(0)
    if value[at : at + 1] != "{":
        raise ValueError("the JSON is no object")
    members: dict[str, str] = {}
    at = skip(at + 1)
    try:
        while value[at] != "}":
            key, at = _decode(value, at)
            at = skip(skip(at) + 1)  # the colon
            item, end = _decode(value, at)
            members[key] = item if value[at] == '"' else value[at:end]
            at = skip(end)
            if value[at] == ",":
                at = skip(at + 1)
    except (ValueError, IndexError, RecursionError) as exc:
        raise ValueError("the JSON cannot be read") from exc
    return members


def _unix_us_of_any(value: str) -> int:
    if value == "infinity":
        return INT64_MAX
    if value == "-infinity":
        return INT64_MIN
    parts = _TIME.match(value)
    if parts is None:
        raise ValueError(f"{value!r} is no time in ISO form")
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m, off_s, before = parts.groups()
    days = _days_from_civil(1 - int(year) if before else int(year), int(month), int(day))
    seconds = days * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    offset = int(off_h or 0) * 3600 + int(off_m or 0) * 60 + int(off_s or 0)
    seconds += offset if sign == "-" else -offset
    us = seconds * 1_000_000 + int((fraction or "").ljust(6, "0"))
    if us >= INT64_MAX:  # the greatest itself stands for infinity
        raise ValueError(f"{value} is past the greatest int64 in microseconds")
    return us


@lru_cache(maxsize=4096)
def _days_of(date: str) -> int:
    """Days from 1970-01-01 to a date in the form 2026-01-02; few dates are asked for, often."""
    return _days_from_civil(int(date[:4]), int(date[5:7]), int(date[8:10]))


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC.

    Howard Hinnant's days_from_civil: eras of 400 years that begin on 1 March.
    """
    if month <= 2:
        year -= 1
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


def _map_converter(type_oid: int, field: Field) -> Converter:
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        raise Unconvertible("no repeated field but map<string, string>")
    if any(part.type != Field.TYPE_STRING for part in entry.fields):
        raise Unconvertible("no map but map<string, string>")
    return _pick(type_oid, {JSONB: text_map, JSON: text_map}, "a jsonb or json")


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
