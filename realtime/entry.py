"""One message of the stream, read once and shared by all who want it.

The subject and the headers say where it goes; the payload is checked once, and not used.
``frame`` is the event as it stands in a response, tag and length included, so that a
response is a join of ready-made bytes.

The check is protobuf's own parse: what it takes, every client takes. A walk over the wire format
that looked for truncated submessages and broken UTF-8 was tried, and took as long, compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Events, StreamedEvent
from protos.wire import delimited_header, varint
from realtime.cursor import CURSOR_BYTES, encode_cursor

FOREIGN: Final = "foreign"

EVENTS_FIELD: Final = Events.EVENTS_FIELD_NUMBER
EVENT_FIELD: Final = StreamedEvent.EVENT_FIELD_NUMBER
_SEQUENCE_TAG: Final = varint(StreamedEvent.SEQUENCE_FIELD_NUMBER << 3)
_CURSOR_HEAD: Final = delimited_header(StreamedEvent.CURSOR_FIELD_NUMBER, CURSOR_BYTES)
_EVENT_TAG: Final = varint(EVENT_FIELD << 3 | 2)
_EVENTS_TAG: Final = varint(EVENTS_FIELD << 3 | 2)

_VERB: Final = f"\r\n{fmt.VERB}:"
_COMMIT: Final = f"\r\n{fmt.COMMIT}:"
_CHANGED: Final = f"\r\n{fmt.CHANGED}:"

_parse = Event.FromString


class Entry:
    """A stored message, never changed. ``subject`` is None for Zephyr's own marks, which are never delivered; their
    ``verb`` is which: ``position``, ``owner``, ``producer``, …"""

    __slots__ = (
        "_changed",
        "commit",
        "frame",
        "kept",
        "payload_size",
        "sequence",
        "subject",
        "timestamp_ns",
        "verb",
    )

    def __init__(
        self,
        sequence: int,
        timestamp_ns: int,
        subject: fmt.Subject | None,
        verb: str,
        commit: fmt.CommitPlace | None,
        kept: bytes,
        frame: bytes,
        payload_size: int = 0,
        changed: str = "",
    ) -> None:
        self.sequence = sequence
        self.timestamp_ns = timestamp_ns
        self.subject = subject
        self.verb = verb
        self.commit = commit
        self.kept = kept
        self.frame = frame
        self.payload_size = payload_size
        self._changed = changed

    def __repr__(self) -> str:
        return f"Entry({self.sequence}, {self.subject}, {self.verb!r})"

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the fields that an update changed, as its header says."""
        return tuple([name.strip() for name in self._changed.split(",")]) if self._changed else ()

    @property
    def payload(self) -> bytes:
        """What was stored: the end of ``frame``, so that it is held once; of a mark, ``kept``."""
        return self.frame[-self.payload_size :] if self.payload_size else self.kept

    @property
    def place(self) -> bytes:
        """The fields of ``frame`` that say where the event stands: all but the event."""
        event = (
            self.payload_size + len(delimited_header(EVENT_FIELD, self.payload_size))
            if self.payload_size
            else 0
        )
        # Tag and length stand in front: a length of one byte, or of as many as go on.
        start = 2
        while self.frame[start - 1] & 0x80:
            start += 1
        return self.frame[start : len(self.frame) - event]

    @property
    def is_internal(self) -> bool:
        return self.subject is None

    @property
    def is_row(self) -> bool:
        """Whether it says something of a row's state: a domain event never does, whatever its verb is."""
        return self.subject is not None and self.subject.suffix == "row"

    @property
    def is_truncation(self) -> bool:
        """Whether all rows of its kind went, which concerns every workspace."""
        return self.verb == fmt.TRUNCATED and self.is_row

    @property
    def stands_alone(self) -> bool:
        """Whether it says what a snapshot found of a row: no transaction is open at that place."""
        return self.verb == fmt.READ and self.is_row


def make_entry(
    epoch: str,
    subject: str,
    headers: Mapping[str, str],
    payload: bytes,
    sequence: int,
    timestamp_ns: int,
) -> Entry:
    """The entry of a message as the broker gave it.

    What is not of the stream's format (anybody may publish below ``zephyr.``) counts as
    internal with the verb ``foreign``: it is never delivered, and it stops nobody. An event
    whose payload cannot be read is delivered as its place alone, without ``event``: one such
    message in a frame would make the whole frame unreadable to every client.
    """
    verb = headers.get(fmt.VERB, "")
    return _make(
        epoch,
        subject,
        verb,
        headers.get(fmt.COMMIT, ""),
        headers.get(fmt.CHANGED, "") if verb == fmt.UPDATED else "",
        payload,
        sequence,
        timestamp_ns,
    )


def read_entry(
    epoch: str, subject: bytes, headers: bytes, payload: bytes, sequence: int, timestamp_ns: int
) -> Entry:
    """``make_entry`` of a message whose subject and headers are as they came over the wire."""
    text = headers.decode("utf-8", "replace")
    verb = header(text, _VERB)
    return _make(
        epoch,
        subject.decode("utf-8", "replace"),
        verb,
        header(text, _COMMIT),
        header(text, _CHANGED) if verb == fmt.UPDATED else "",
        payload,
        sequence,
        timestamp_ns,
    )


def header(headers: str, begins: str) -> str:
    """The value of a header; empty without it. ``begins`` is the end of the line before, the name and the colon."""
    at = headers.find(begins)
    if at < 0:
        return ""
    at += len(begins)
    end = headers.find("\r\n", at)
    return headers[at:end].strip()


def _make(
    epoch: str,
    subject: str,
    verb: str,
    commit: str,
    changed: str,
    payload: bytes,
    sequence: int,
    timestamp_ns: int,
) -> Entry:
    try:
        parsed = fmt.parse_subject(subject)
        place = fmt.parse_commit(commit) if commit else None
    except ValueError:
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    if parsed is None:
        return Entry(sequence, timestamp_ns, None, fmt.mark_of(subject), None, payload, b"")
    if not verb:
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    where = _SEQUENCE_TAG + varint(sequence) + _CURSOR_HEAD + encode_cursor(epoch, sequence, timestamp_ns)
    if not _is_event(payload):
        frame = b"".join((_EVENTS_TAG, varint(len(where)), where))
        return Entry(sequence, timestamp_ns, parsed, verb, place, b"", frame, 0, changed)
    size = len(payload)
    length = varint(size)
    body = len(where) + len(_EVENT_TAG) + len(length) + size
    frame = b"".join((_EVENTS_TAG, varint(body), where, _EVENT_TAG, length, payload))
    return Entry(sequence, timestamp_ns, parsed, verb, place, b"", frame, size, changed)


def _is_event(payload: bytes) -> bool:
    try:
        _parse(payload)
    except DecodeError:
        return False
    return True
