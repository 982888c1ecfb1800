"""Protobuf fields written by hand, for messages that are joined from ready-made bytes.

Source: the Protocol Buffers encoding page: a field is a varint tag ``number << 3 | type``,
then for type 0 a varint, for type 2 a length and that many bytes.
"""

from __future__ import annotations

from typing import Final

SHORT: Final = tuple([bytes((value,)) for value in range(128)])
"""The varints of one byte, by their value."""

# The varints of two bytes, by their value; what is below 128 is shorter.
_DOUBLE: Final = tuple([bytes((value & 0x7F | 0x80, value >> 7)) for value in range(1 << 14)])

# Two bytes that are not a varint's last, by the 14 bits that they hold.
_PAIRS: Final = tuple([bytes((value & 0x7F | 0x80, value >> 7 | 0x80)) for value in range(1 << 14)])


def varint(value: int) -> bytes:
    """An unsigned integer as a base-128 varint."""
    if value < 128:
        return SHORT[value]
    if value < 1 << 14:
        return _DOUBLE[value]
    out = b""
    while value >= 1 << 14:
        out += _PAIRS[value & 0x3FFF]
        value >>= 14
    if value < 128:
        return out + SHORT[value]
    return out + _DOUBLE[value]


def varint_field(number: int, value: int) -> bytes:
    """An integer field; nothing for 0, as proto3 leaves out defaults."""
    return varint(number << 3) + varint(value) if value else b""


def delimited_header(number: int, length: int) -> bytes:
    """Tag and length of a field whose ``length`` bytes follow."""
    return varint(number << 3 | 2) + varint(length)


def delimited(number: int, body: bytes) -> bytes:
    """A bytes, text or message field."""
    return delimited_header(number, len(body)) + body
