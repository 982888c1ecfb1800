"""A message of the stream, ready to be stored, and what all messages of a transaction share."""

from __future__ import annotations

from typing import NamedTuple

from bridge.change import Begin
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Commit, Event
from protos.wire import varint, varint_field

_UINT64 = (1 << 64) - 1
_INDEX_TAG = varint(Commit.INDEX_FIELD_NUMBER << 3)
_COUNT_TAG = varint(Commit.COUNT_FIELD_NUMBER << 3)
_COMMIT_TAG = varint(Event.DESCRIPTOR.fields_by_name["commit"].number << 3 | 2)


_OVERHEAD_BYTES = 512
"""What the broker counts for a message beside subject and payload, at most, when limits are shared out."""


# One is made for every row, and a frozen dataclass takes six times a named tuple's time.
class Outgoing(NamedTuple):
    """A message as it is published. ``head`` has its headers, ``Name: value`` and CRLF each."""

    subject: str
    head: str
    payload: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name."""
        return headers_of(self.head)


def head_of(headers: dict[str, str]) -> str:
    """Headers as the text of an ``Outgoing``."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def headers_of(head: str) -> dict[str, str]:
    """The headers by name, of such a text."""
    found = {}
    for line in head.split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            found[name] = value
    return found


def stored_bytes(messages: list[Outgoing]) -> int:
    """What the broker counts for messages, at most, headers included."""
    size = _OVERHEAD_BYTES * len(messages)
    for message in messages:
        size += len(message.subject) + len(message.payload)
    return size


class Moment:
    """A transaction, as its messages need it: computed once, used for every row.

    ``id_prefix`` is an event's id up to the index, ``place_prefix`` the ``Zephyr-Commit`` header
    up to it; ``time_field`` is the envelope's field as bytes.
    """

    __slots__ = ("_commit_lsn", "id_prefix", "place_prefix", "time_field")

    def __init__(self, begin: Begin, id_prefix: str) -> None:
        lsn = fmt.format_lsn(begin.commit_lsn)
        self.id_prefix = f"{id_prefix}{lsn}."
        self.place_prefix = f"{lsn}/"
        self.time_field = varint_field(Event.TIME_FIELD_NUMBER, begin.commit_time_us & _UINT64)
        self._commit_lsn = varint_field(Commit.LSN_FIELD_NUMBER, begin.commit_lsn)

    def commit_field(self, index: int, count: int) -> bytes:
        """The envelope's ``commit``; ``count`` is 0 but on the transaction's last message."""
        commit = self._commit_lsn
        if index:
            commit += _INDEX_TAG + varint(index)
        if count:
            commit += _COUNT_TAG + varint(count)
        return _COMMIT_TAG + varint(len(commit)) + commit
