"""One message of the stream, read once and shared by all who want it.

The subject and the headers say where it goes; the payload is checked once, and not used.
``frame`` is the event as it stands in a response, tag and length included, so that a
response is a join of ready-made bytes.

The check is protobuf's own parse: what it takes, every client takes. What came together is checked
together, as the run of events that it will be in a frame: most of a parse is what it costs to call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from protos.acyclic import mypyc_attr
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
_FIXED_BYTES: Final = len(_SEQUENCE_TAG) + len(_CURSOR_HEAD) + len(_EVENT_TAG)

_VERB: Final = f"\r\n{fmt.VERB}:".encode()
_COMMIT: Final = f"\r\n{fmt.COMMIT}:".encode()
_CHANGED: Final = f"\r\n{fmt.CHANGED}:".encode()
_FENCE: Final = f"\r\n{fmt.FENCE_SUBJECT}:".encode()
_OWNER: Final = fmt.OWNER_SUBJECT.encode()

_ROW_ALONE: Final = frozenset(fmt.ROW_VERBS) - {fmt.REJECTED}
"""A domain event of the bridge may be rejected too."""

_CHECKED_BYTES: Final = 64 * 1024
"""What is checked together; an event over it is checked alone."""
_MOST_KNOWN: Final = 4096
"""Beginnings of subjects, and verbs, that are remembered: so many are had again and again."""

_parse: Final = Event.FromString
_parse_run: Final = Events.FromString
_places: Final[dict[bytes, fmt.Subject]] = {}
_verbs: Final[dict[bytes, str]] = {}


@mypyc_attr(acyclic=True)
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
    entry = _make(
        epoch,
        subject.encode("utf-8", "replace"),
        verb,
        commit,
        headers.get(fmt.CHANGED, "") if verb == fmt.UPDATED else "",
        payload,
        sequence,
        timestamp_ns,
    )
    return entry if _is_readable(entry) else _without_event(entry)


def read_entry(
    epoch: str, subject: bytes, headers: bytes, payload: bytes, sequence: int, timestamp_ns: int
) -> Entry:
    """``make_entry`` of a message whose subject and headers are as they came over the wire."""
    entry = unchecked_entry(epoch, subject, headers, payload, sequence, timestamp_ns)
    return entry if _is_readable(entry) else _without_event(entry)


def unchecked_entry(
    epoch: str, subject: bytes, headers: bytes, payload: bytes, sequence: int, timestamp_ns: int
) -> Entry:
    """``read_entry`` before its payload is checked: ``check`` comes before anybody sees it."""
    verb = _verb(headers)
    commit = _value(headers, _COMMIT)
    if commit and subject.endswith(b".event") and _value(headers, _FENCE).strip() != _OWNER:
        commit = b""
    return _make(
        epoch,
        subject,
        verb,
        commit.decode("utf-8", "replace").strip(),
        _value(headers, _CHANGED).decode("utf-8", "replace").strip() if verb == fmt.UPDATED else "",
        payload,
        sequence,
        timestamp_ns,
    )


def check(entries: list[Entry]) -> None:
    """Puts, for each entry whose payload cannot be read, one without ``event`` in its place."""
    start, end = 0, len(entries)
    while start < end:
        at, size = start, 0
        frames: list[bytes] = []
        while at < end and (not size or size + len(entries[at].frame) <= _CHECKED_BYTES):
            frame = entries[at].frame
            frames.append(frame)
            size += len(frame)
            at += 1
        try:
            _parse_run(b"".join(frames))
        except DecodeError:
            for place in range(start, at):
                entry = entries[place]
                if not _is_readable(entry):
                    entries[place] = _without_event(entry)
        start = at


def header(headers: str, begins: str) -> str:
    """The value of a header; empty without it. ``begins`` is the end of the line before, the name and the colon."""
    at = headers.find(begins)
    if at < 0:
        return ""
    at += len(begins)
    end = headers.find("\r\n", at)
    return headers[at:end].strip()


def _value(headers: bytes, begins: bytes) -> bytes:
    """``header`` of the bytes as they came."""
    at = headers.find(begins)
    if at < 0:
        return b""
    at += len(begins)
    return headers[at : headers.find(b"\r\n", at)]


def _verb(headers: bytes) -> str:
    value = _value(headers, _VERB)
    verb = _verbs.get(value)
    if verb is None:
        verb = value.decode("utf-8", "replace").strip()
        if len(_verbs) >= _MOST_KNOWN:
            _verbs.clear()
        _verbs[value] = verb
    return verb


def _subject(subject: bytes) -> fmt.Subject | None:
    """``parse_subject``, with what stands before the entity remembered: events differ in little else.

    Raises:
        ValueError: the subject is neither an event's nor a mark's.
    """
    end = subject.rfind(b".")
    begin = subject.rfind(b".", 0, end) if end > 0 else -1
    suffix = subject[end:]
    if begin > 0 and (suffix == b".row" or suffix == b".event"):  # noqa: PLR1714  # no tuple for each event
        place = _places.get(subject[:begin])
        if place is not None:
            entity = subject[begin + 1 : end].decode("utf-8", "replace")
            return fmt.Subject(
                place.workspace, place.kind, entity, "row" if suffix == b".row" else "event", place.shard
            )
    parsed = fmt.parse_subject(subject.decode("utf-8", "replace"))
    if parsed is not None:
        if len(_places) >= _MOST_KNOWN:
            _places.clear()
        _places[subject[:begin]] = parsed
    return parsed


def _make(
    epoch: str,
    subject: bytes,
    verb: str,
    commit: str,
    changed: str,
    payload: bytes,
    sequence: int,
    timestamp_ns: int,
) -> Entry:
    try:
        parsed = _subject(subject)
        place = fmt.parse_commit(commit) if commit else None
    except ValueError:
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    if parsed is None:
        # Not the last token: a producer chooses its id.
        mark = fmt.mark_of(subject.decode("utf-8", "replace"))
        return Entry(sequence, timestamp_ns, None, mark, None, payload, b"")
    if not verb or (parsed.suffix == "event" and _says_a_row(verb, payload)):
        return Entry(sequence, timestamp_ns, None, FOREIGN, None, b"", b"")
    number = varint(sequence)
    cursor = encode_cursor(epoch, sequence, timestamp_ns)
    size = len(payload)
    length = varint(size)
    body = _FIXED_BYTES + len(number) + len(cursor) + len(length) + size
    frame = b"".join(
        (_EVENTS_TAG, varint(body), _SEQUENCE_TAG, number, _CURSOR_HEAD, cursor, _EVENT_TAG, length, payload)
    )
    return Entry(sequence, timestamp_ns, parsed, verb, place, b"", frame, size, changed)


def _says_a_row(verb: str, payload: bytes) -> bool:
    """Whether a domain event, which anybody may store, says in header or payload what the bridge alone may say."""
    if verb in _ROW_ALONE:
        return True
    try:
        return _parse(payload).type.rpartition(".")[2] in _ROW_ALONE
    except DecodeError:
        return False


def _is_readable(entry: Entry) -> bool:
    if entry.subject is None:
        return True
    try:
        _parse(entry.payload)
    except DecodeError:
        return False
    return True


def _without_event(entry: Entry) -> Entry:
    where = entry.place
    return Entry(
        entry.sequence,
        entry.timestamp_ns,
        entry.subject,
        entry.verb,
        entry.commit,
        b"",
        b"".join((_EVENTS_TAG, varint(len(where)), where)),
        0,
        entry._changed,
    )
