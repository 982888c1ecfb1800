"""A message of the stream, ready to be stored, and what all messages of a transaction share."""

from __future__ import annotations

from typing import Final

from bridge.change import Begin
from bridge.context import Context
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Commit, Event
from protos.wire import varint, varint_field

_UINT64: Final = (1 << 64) - 1
_INDEX_TAG: Final = varint(Commit.INDEX_FIELD_NUMBER << 3)
_COUNT_TAG: Final = varint(Commit.COUNT_FIELD_NUMBER << 3)
_COMMIT_TAG: Final = varint(Event.DESCRIPTOR.fields_by_name["commit"].number << 3 | 2)


_OVERHEAD_BYTES: Final = 512
"""What the broker counts for a message beside subject and payload, at most, when limits are shared out."""


class Outgoing:
    """A message as it is published. ``head`` has its headers, ``Name: value`` and CRLF each."""

    __slots__ = ("head", "payload", "subject")

    def __init__(self, subject: str, head: str, payload: bytes) -> None:
        self.subject = subject
        self.head = head
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Outgoing)
            and self.subject == other.subject
            and self.head == other.head
            and self.payload == other.payload
        )

    __hash__ = None  # type: ignore[assignment]  # it is compared in tests, and never a key

    def __repr__(self) -> str:
        return f"Outgoing({self.subject!r}, {self.head!r}, {len(self.payload)} bytes)"

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
        if len(message.head) > _OVERHEAD_BYTES // 2:
            size += len(message.head)
    return size


class Moment:
    """A transaction, as its messages need it: computed once, used for every row.

    ``id_prefix`` is an event's id up to the index, ``place_prefix`` the ``Zephyr-Commit`` header
    up to it; ``time_field`` is the envelope's field as bytes. ``context`` is what the transaction
    says of itself, ``context_fields`` and ``context_head`` the same as bytes and as headers.
    """

    __slots__ = (
        "_commit_lsn",
        "context",
        "context_fields",
        "context_head",
        "id_prefix",
        "place_prefix",
        "time_field",
    )

    def __init__(self, begin: Begin, id_prefix: str, context: Context | None = None) -> None:
        lsn = fmt.format_lsn(begin.commit_lsn)
        self.id_prefix = f"{id_prefix}{lsn}."
        self.place_prefix = f"{lsn}/"
        self.time_field = varint_field(Event.TIME_FIELD_NUMBER, begin.commit_time_us & _UINT64)
        self.context = context
        self.context_fields: bytes = context.fields if context is not None else b""
        self.context_head: str = context.head if context is not None else ""
        self._commit_lsn = varint_field(Commit.LSN_FIELD_NUMBER, begin.commit_lsn)

    def commit_field(self, index: int, count: int) -> bytes:
        """The envelope's ``commit``; ``count`` is 0 but on the transaction's last message."""
        commit = self._commit_lsn
        if index:
            commit += _INDEX_TAG + varint(index)
        if count:
            commit += _COUNT_TAG + varint(count)
        return _COMMIT_TAG + varint(len(commit)) + commit
