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
_FENCE: Final = f"\r\n{fmt.FENCE_SUBJECT}:"

_ROW_ALONE: Final = frozenset(fmt.ROW_VERBS) - {fmt.REJECTED}
"""A domain event of the bridge may be rejected too."""

_parse = Event.FromString


class Entry:
    """A stored message, never changed. ``subject`` is None for Zephyr's own marks, which are never delivered; their
    ``verb`` is ``position``, ``owner``, ``producer`` and so on."""

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

    What is not of the stream's format (anybody may publish below ``zephyr.``), or a domain event with
    a verb of rows, counts as internal with the verb ``foreign``: it is never delivered, and it stops nobody. An event
    whose payload cannot be read is delivered as its place alone, without ``event``: one such
    message in a frame would make the whole frame unreadable to every client.
    """
    verb = headers.get(fmt.VERB, "")
    commit = headers.get(fmt.COMMIT, "")
    # A place in a transaction is the bridge's to give: of others it would hold back what follows.
    if commit and subject.endswith(".event") and headers.get(fmt.FENCE_SUBJECT) != fmt.OWNER_SUBJECT:
        commit = ""
    return _make(
        epoch,
        subject,
        verb,
        commit,
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
    commit = header(text, _COMMIT)
    if commit and subject.endswith(b".event") and header(text, _FENCE) != fmt.OWNER_SUBJECT:
        commit = ""
    return _make(
        epoch,
        subject.decode("utf-8", "replace"),
        verb,
        commit,
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
        # Not the last token: a producer chooses its id.
        return Entry(sequence, timestamp_ns, None, subject.split(".")[3], None, payload, b"")
    if not verb or (parsed.suffix == "event" and _says_a_row(verb, payload)):
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


def _says_a_row(verb: str, payload: bytes) -> bool:
    """Whether a domain event, which anybody may store, says in header or payload what the bridge alone may say."""
    if verb in _ROW_ALONE:
        return True
    try:
        return _parse(payload).type.rpartition(".")[2] in _ROW_ALONE
    except DecodeError:
        return False


def _is_event(payload: bytes) -> bool:
    try:
        _parse(payload)
    except DecodeError:
        return False
    return True
