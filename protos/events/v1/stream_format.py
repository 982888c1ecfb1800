"""The stream's format: subjects, headers and metadata keys of the JetStream stream.

It is a contract like the protobuf files: other programs read the stream, and the bridge
and the server meet nowhere else. Nothing here does I/O. ``docs/stream-format.md`` says
the same in prose, and a contract test holds both against a stream that the bridge wrote.

    zephyr.<shard>.<workspace>.<kind>.<entity id>.<row|event>
    zephyr._mark.<shard>.<position|owner|snapshot|backfill|schema>
    zephyr._mark.<shard>.producer.<producer id>
"""

from __future__ import annotations

import re
from typing import Final, Literal

from protos.acyclic import mypyc_attr

ROOT: Final = "zephyr"
SUBJECTS: Final = "zephyr.>"
SHARD: Final = "0"
NONE: Final = "_"
"""Stands where there is no workspace, or no single entity."""

MARKS: Final = "_mark"
OWNER_SUBJECT: Final = f"{ROOT}.{MARKS}.{SHARD}.owner"
POSITION_SUBJECT: Final = f"{ROOT}.{MARKS}.{SHARD}.position"
BACKFILL_SUBJECT: Final = f"{ROOT}.{MARKS}.{SHARD}.backfill"
SCHEMA_SUBJECT: Final = f"{ROOT}.{MARKS}.{SHARD}.schema"
SNAPSHOT_SUBJECT: Final = f"{ROOT}.{MARKS}.{SHARD}.snapshot"
PRODUCER: Final = "producer"

ROW_SUBJECTS: Final = f"{ROOT}.*.*.*.*.row"
"""Where rows are, which the bridge alone writes."""

DEAD_LETTERS: Final = "zephyr-dead"
"""First token of the dead-letter stream's subjects."""

LIVE_ROOT: Final = "zephyr-live"
"""First token of the subjects of broadcasts, which are stored nowhere:
``zephyr-live.<shard>.<workspace>.<kind>.<entity id>``."""
LIVE_SUBJECTS: Final = f"{LIVE_ROOT}.*.*.*.*"

EPOCH_KEY: Final = "zephyr-epoch"
"""Key of the epoch in the stream's metadata."""
FORMAT_KEY: Final = "zephyr-format"
FORMAT: Final = "1"

ID: Final = "Zephyr-Id"
VERB: Final = "Zephyr-Verb"
CHANGED: Final = "Zephyr-Changed"
COMMIT: Final = "Zephyr-Commit"
SCHEMA: Final = "Zephyr-Schema"
ACTOR: Final = "Zephyr-Actor"
CORRELATION: Final = "Zephyr-Correlation"
TRACEPARENT: Final = "traceparent"

# The fence (NATS 2.12 and later; ADR-50): the message is stored only while the owner
# mark is the one that its writer wrote.
FENCE_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
FENCE_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"

CREATED: Final = "created"
UPDATED: Final = "updated"
DELETED: Final = "deleted"
TRUNCATED: Final = "truncated"
ENTERED: Final = "entered"
LEFT: Final = "left"
REJECTED: Final = "rejected"
"""A change whose row could not become an event: the entity's state is not known from here."""
READ: Final = "read"
"""A row as a snapshot found it: its whole state, and no change of a transaction."""
ROW_VERBS: Final = (CREATED, UPDATED, DELETED, TRUNCATED, ENTERED, LEFT, READ, REJECTED)
STATES: Final = (CREATED, UPDATED, ENTERED, READ)
"""After these the row stands as the event says."""

PUBLISH_REQUESTS: Final = "zephyr-publish"
"""First token of the subjects at which servers are asked to store a domain event: no subjects of the stream.
``zephyr-publish.<shard>.<workspace>.<kind>.<entity id>``."""

Suffix = Literal["row", "event"]
_VERB: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


@mypyc_attr(acyclic=True)
class Subject:
    """Where an event is published. ``entity`` is ``_`` for an event about all entities. A value: never changed."""

    __slots__ = ("entity", "kind", "shard", "suffix", "workspace")

    def __init__(
        self, workspace: str, kind: str, entity: str, suffix: Suffix = "row", shard: str = SHARD
    ) -> None:
        self.workspace = workspace
        self.kind = kind
        self.entity = entity
        self.suffix = suffix
        self.shard = shard

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subject) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"Subject({str(self)!r})"

    def __str__(self) -> str:
        return f"{ROOT}.{self.shard}.{self.workspace}.{self.kind}.{self.entity}.{self.suffix}"


def is_token(text: str) -> bool:
    """Whether ``text`` can stand as one token of a subject: letters, digits, ``-`` and ``_``."""
    return _TOKEN.match(text) is not None


def is_verb(text: str) -> bool:
    """Whether ``text`` can be a verb: a lower-case letter, then lower-case letters, digits, ``-`` and ``_``."""
    return _VERB.match(text) is not None


def parse_subject(subject: str) -> Subject | None:
    """The parts of an event's subject; None for a mark.

    Raises:
        ValueError: the subject is neither an event's nor a mark's.
    """
    parts = subject.split(".")
    size = len(parts)
    is_mark = size == 4 or (size == 5 and parts[3] == PRODUCER)
    if is_mark and parts[0] == ROOT and parts[1] == MARKS:
        return None
    if size != 6 or parts[0] != ROOT or parts[5] not in ("row", "event"):
        raise ValueError(f"not a subject of the stream: {subject!r}")
    suffix: Suffix = "row" if parts[5] == "row" else "event"
    return Subject(parts[2], parts[3], parts[4], suffix, parts[1])


def producer_subject(producer: str) -> str:
    """Where the marks of a producer of domain events stand."""
    return f"{ROOT}.{MARKS}.{SHARD}.{PRODUCER}.{producer}"


def publish_subject(workspace: str, kind: str, entity: str) -> str:
    """Where servers are asked to store a domain event."""
    return f"{PUBLISH_REQUESTS}.{SHARD}.{workspace}.{kind}.{entity}"


def mark_of(subject: str) -> str:
    """Which mark a mark's subject is of: ``position``, ``owner``, ``producer``, …"""
    return subject.split(".", 4)[3]


@mypyc_attr(acyclic=True)
class CommitPlace:
    """The place of a message in its transaction; ``count`` is set on the last message alone. A value: never
    changed."""

    __slots__ = ("count", "index", "lsn")

    def __init__(self, lsn: int, index: int, count: int = 0) -> None:
        self.lsn = lsn
        self.index = index
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommitPlace) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: CommitPlace) -> bool:
        return self._key() < other._key()

    def __gt__(self, other: CommitPlace) -> bool:
        return self._key() > other._key()

    def __le__(self, other: CommitPlace) -> bool:
        return self._key() <= other._key()

    def __ge__(self, other: CommitPlace) -> bool:
        return self._key() >= other._key()

    def __repr__(self) -> str:
        return f"CommitPlace({str(self)!r})"

    def _key(self) -> tuple[int, int, int]:
        return self.lsn, self.index, self.count

    def __str__(self) -> str:
        text = f"{format_lsn(self.lsn)}/{self.index}"
        return f"{text}/{self.count}" if self.count else text


def format_lsn(lsn: int) -> str:
    """A WAL position as one hexadecimal number without the slash: ``16B3748``."""
    return f"{lsn:X}"


def parse_commit(text: str) -> CommitPlace:
    """Reads a ``Zephyr-Commit`` header.

    Raises:
        ValueError: it is not of the form ``LSN/index`` or ``LSN/index/count``.
    """
    if text.endswith("/0/1"):  # of nearly all there is one in its transaction
        return CommitPlace(int(text[:-4], 16), 0, 1)
    parts = text.split("/")
    if len(parts) not in (2, 3):
        raise ValueError(f"not a {COMMIT} header: {text!r}")
    count = int(parts[2]) if len(parts) == 3 else 0
    return CommitPlace(int(parts[0], 16), int(parts[1]), count)


def event_id(system_id: str, epoch: str, lsn: int, index: int) -> str:
    """The id of a change of a row: ``{system id}.{epoch}.{commit LSN}.{index}``."""
    return f"{system_id}.{epoch}.{format_lsn(lsn)}.{index}"


def state_id(system_id: str, epoch: str, lsn: int, mark: Literal["r", "d"], subject: Subject) -> str:
    """The id of what a snapshot at ``lsn`` says of an entity: that it was read, or that it is gone."""
    place = f"{subject.workspace}.{subject.kind}.{subject.entity}"
    return f"{system_id}.{epoch}.{format_lsn(lsn)}.{mark}.{place}"


EVENT_PREFIX = "zephyr.event"
"""Prefix of the logical message that becomes a domain event at its place in its transaction."""
CONTEXT_PREFIX = "zephyr.context"
"""Prefix of the logical message that says who and what is behind its transaction."""
PROGRESS = "zephyr.progress"
"""Prefix of the logical message that asks the bridge for a position mark at once."""


def backfill_subject(stream: str) -> str:
    """Where a bridge is asked for a backfill: no subject of the stream."""
    return f"zephyr_bridge.backfill.{stream}"


def live_subject(workspace: str, kind: str, entity: str) -> str:
    """Where a broadcast goes."""
    return f"{LIVE_ROOT}.{SHARD}.{workspace}.{kind}.{entity}"


def parse_live_subject(subject: str) -> Subject:
    """The parts of a broadcast's subject, as those of an event.

    Raises:
        ValueError: it is none, or one of its tokens cannot be one.
    """
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != LIVE_ROOT or not all(map(is_token, parts)):
        raise ValueError(f"not a subject of a broadcast: {subject!r}")
    return Subject(parts[2], parts[3], parts[4], "event", parts[1])
