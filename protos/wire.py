"""Protobuf fields written by hand, for messages that are joined from ready-made bytes.

Source: the Protocol Buffers encoding page: a field is a varint tag ``number << 3 | type``,
then for type 0 a varint, for type 2 a length and that many bytes.
"""

from __future__ import annotations

_ONE_BYTE = tuple(bytes((value,)) for value in range(128))
_TWO_BYTES = 1 << 14


def varint(value: int) -> bytes:
    """An unsigned integer as a base-128 varint."""
    if value < 128:
        return _ONE_BYTE[value]
    if value < _TWO_BYTES:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    """An integer field; nothing for 0, as proto3 leaves out defaults."""
    return varint(number << 3) + varint(value) if value else b""


def delimited_header(number: int, length: int) -> bytes:
    """Tag and length of a field whose ``length`` bytes follow."""
    return varint(number << 3 | 2) + varint(length)


def delimited(number: int, body: bytes) -> bytes:
    """A bytes, text or message field."""
    return delimited_header(number, len(body)) + body
