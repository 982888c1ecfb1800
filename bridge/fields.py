"""One column of a row as the bytes of its protobuf field.

A message is a join of its fields' bytes, so a row becomes one without a message object
being made: an emitter, chosen once a relation version, gives tag, length and value. Texts,
integers and times are written by hand, being nearly all there is in a row; for every other
type protobuf itself serializes a message that has the one field.

Source: the Protocol Buffers encoding page; proto3 leaves out a field that has its default,
unless it has presence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as Field

from bridge import values
from protos.wire import delimited_header, varint

Emitter = Callable[[str], bytes]

_SHORT_BYTES: Final = 128
"""Below this a length is one byte."""
_VARINT_TYPES = frozenset((Field.TYPE_INT64, Field.TYPE_INT32, Field.TYPE_UINT64, Field.TYPE_UINT32))
_MEMO_ENTRIES: Final = 1024
_MEMO_CHARACTERS: Final = 64
_UINT64: Final = (1 << 64) - 1
_UNIX_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - both sides of the difference are UTC


def emitter(field: Field, convert: values.Converter) -> Emitter:
    """What turns a column's text into the bytes of ``field``, by ``convert`` (see ``values.converter``).

    The emitter raises ValueError for a text that the field cannot hold.
    """
    if not field.is_repeated and field.type == Field.TYPE_STRING and convert is values.text:
        return _text(field)
    if not field.is_repeated and field.type in _VARINT_TYPES and convert in (int, values.unix_us):
        return _integer(field, _unix_us if convert is values.unix_us else convert)
    return _serialized(field, convert)


def _text(field: Field) -> Emitter:
    number, says_default = field.number, field.has_presence
    heads = [delimited_header(number, length) for length in range(_SHORT_BYTES)]

    def emit(value: str) -> bytes:
        data = value.encode()
        size = len(data)
        if size < _SHORT_BYTES:
            return heads[size] + data if size or says_default else b""
        return delimited_header(number, size) + data

    return emit


def _integer(field: Field, convert: Callable[[str], object]) -> Emitter:
    tag, says_default = varint(field.number << 3), field.has_presence
    # What fits the field: protobuf would refuse the rest, and so must we.
    least, most = _BOUNDS[field.type]

    def emit(value: str) -> bytes:
        number = convert(value)
        assert isinstance(number, int)
        if not least <= number <= most:
            raise ValueError(f"{value} does not fit the field")
        # A negative number is written as 64 bits in two's complement.
        return tag + varint(number & _UINT64) if number or says_default else b""

    return emit


def _unix_us(value: str) -> int:
    """``values.unix_us`` of a time in UTC between the years 1 and 9999, by C code; else itself."""
    if value[-3:] == "+00":
        try:
            since = datetime.fromisoformat(value[:-3]) - _UNIX_EPOCH
        except ValueError:
            return values.unix_us(value)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return values.unix_us(value)


def _serialized(field: Field, convert: values.Converter) -> Emitter:
    name = field.name
    assert field.containing_type is not None, "a message has it"
    message_class = message_factory.GetMessageClass(field.containing_type)
    memo: dict[str, bytes] = {}

    def emit(value: str) -> bytes:
        known = memo.get(value)
        if known is not None:
            return known
        data: bytes = message_class(**{name: convert(value)}).SerializeToString(deterministic=True)
        if len(value) <= _MEMO_CHARACTERS:
            if len(memo) >= _MEMO_ENTRIES:
                memo.clear()
            memo[value] = data
        return data

    return emit


_BOUNDS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1),
    Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1),
}
