"""One message of the stream, read once and shared by all who want it.

The subject and the headers say where it goes; the payload is checked once, and not used.
``frame`` is the event as it stands in a response, tag and length included, so that a
response is a join of ready-made bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Events, StreamedEvent
from protos.wire import delimited, delimited_header, varint_field
from realtime.cursor import Cursor

FOREIGN = "foreign"

EVENTS_FIELD = Events.EVENTS_FIELD_NUMBER
_SEQUENCE_FIELD = StreamedEvent.SEQUENCE_FIELD_NUMBER
_CURSOR_FIELD = StreamedEvent.CURSOR_FIELD_NUMBER
EVENT_FIELD = StreamedEvent.EVENT_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored message. ``subject`` is None for Zephyr's own marks, which are never delivered; their
    ``verb`` is ``position`` or ``owner``."""

    sequence: int
    timestamp_ns: int
    subject: fmt.Subject | None
    verb: str
    commit: fmt.CommitPlace | None
    kept: bytes
    frame: bytes
    payload_size: int = 0
    changed: tuple[str, ...] = ()
    """Names of the fields that an update changed."""

    @property
    def payload(self) -> bytes:
        """What was stored: the end of ``frame``, so that it is held once; of a mark, ``kept``."""
        return self.frame[-self.payload_size :] if self.payload_size else self.kept

    @property
    def place(self) -> bytes:
        """The fields of ``frame`` that say where the event stands: all but the event."""
        event = (
            len(self.payload) + len(delimited_header(EVENT_FIELD, self.payload_size))
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
    def stands_alone(self) -> bool:
        """Whether it says what a snapshot found of a row: no transaction is open at that place."""
        return self.verb == fmt.READ and self.subject is not None and self.subject.suffix == "row"


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
    try:
        parsed = fmt.parse_subject(subject)
        text = headers.get(fmt.COMMIT)
        place = fmt.parse_commit(text) if text else None
    except ValueError:
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    if parsed is None:
        return Entry(sequence, timestamp_ns, None, subject.rsplit(".", 1)[1], None, payload, b"")
    if not verb:
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    cursor = Cursor(epoch, sequence, timestamp_ns).encode()
    body = varint_field(_SEQUENCE_FIELD, sequence) + delimited(_CURSOR_FIELD, cursor)
    is_event = _is_event(payload)
    if is_event:
        body += delimited(EVENT_FIELD, payload)
    return Entry(
        sequence,
        timestamp_ns,
        parsed,
        verb,
        place,
        b"",
        delimited(EVENTS_FIELD, body),
        len(payload) if is_event else 0,
        _names(headers.get(fmt.CHANGED, "")),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _is_event(payload: bytes) -> bool:
    try:
        Event.FromString(payload)
    except DecodeError:
        return False
    return True
