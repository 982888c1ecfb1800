"""A frame of the stream read in its bytes: whose it is, what it accounts for, how many events it has.

Events are counted by stepping over their lengths; no object is made of any. What a client
that checks every frame needs, and nothing more.
"""

from __future__ import annotations

from typing import NamedTuple

from protos.events.v1.stream_pb2 import Coverage, Events, SubscribeResponse

EVENTS = SubscribeResponse.EVENTS_FIELD_NUMBER
CAUGHT_UP = SubscribeResponse.CAUGHT_UP_FIELD_NUMBER
FELL_BEHIND = SubscribeResponse.FELL_BEHIND_FIELD_NUMBER
RESET = SubscribeResponse.RESET_FIELD_NUMBER
CLOSED = SubscribeResponse.CLOSED_FIELD_NUMBER

_NAME_TAG = SubscribeResponse.SUBSCRIPTION_ID_FIELD_NUMBER << 3 | 2
_CURSOR_TAG = SubscribeResponse.CURSOR_FIELD_NUMBER << 3 | 2
_COVERAGE_TAG = SubscribeResponse.COVERAGE_FIELD_NUMBER << 3 | 2
_EVENT_TAG = Events.EVENTS_FIELD_NUMBER << 3 | 2
_AFTER, _THROUGH, _MATCHED = (
    Coverage.AFTER_FIELD_NUMBER,
    Coverage.THROUGH_FIELD_NUMBER,
    Coverage.MATCHED_FIELD_NUMBER,
)


class Skimmed(NamedTuple):
    """``kind`` is the number of the field that says what the frame is; ``events`` are counted, ``matched`` is said."""

    name: bytes
    cursor: bytes
    after: int
    through: int
    matched: int
    kind: int
    events: int


def skim(frame: bytes) -> Skimmed:
    """Reads a SubscribeResponse, its fields in the order of their numbers."""
    name = cursor = b""
    numbers = [0] * 8
    at, end = 0, len(frame)
    while at < end:
        tag, at = _varint(frame, at)
        size, at = _varint(frame, at)
        if tag == _NAME_TAG:
            name = frame[at : at + size]
        elif tag == _CURSOR_TAG:
            cursor = frame[at : at + size]
        elif tag == _COVERAGE_TAG:
            place = at
            while place < at + size:
                field, place = _varint(frame, place)
                numbers[field >> 3], place = _varint(frame, place)
        else:
            kind = tag >> 3
            events = _count(frame, at, at + size) if kind == EVENTS else 0
            return Skimmed(name, cursor, numbers[_AFTER], numbers[_THROUGH], numbers[_MATCHED], kind, events)
        at += size
    return Skimmed(name, cursor, numbers[_AFTER], numbers[_THROUGH], numbers[_MATCHED], 0, 0)


def _count(frame: bytes, at: int, end: int) -> int:
    events = 0
    while at < end and frame[at] == _EVENT_TAG:
        size, after = _varint(frame, at + 1)
        width = after - at
        begins, step = frame[at:after], width + size
        # What begins alike, tag and length, is as long: it is stepped over without reading the length again.
        while at < end and frame[at : at + width] == begins:
            events += 1
            at += step
    return events


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
