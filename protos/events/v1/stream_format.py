"""The stream's format: subjects, headers and metadata keys of the JetStream stream.

It is a contract like the protobuf files: other programs read the stream, and the bridge
and the server meet nowhere else. Nothing here does I/O. ``docs/stream-format.md`` says
the same in prose, and a contract test holds both against a stream that the bridge wrote.

    zephyr.<shard>.<workspace>.<kind>.<entity id>.<row|event>
    zephyr._mark.<shard>.<position|owner|snapshot|backfill>
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ROOT = "zephyr"
SUBJECTS = "zephyr.>"
SHARD = "0"
NONE = "_"
"""Stands where there is no workspace, or no single entity."""

MARKS = "_mark"
OWNER_SUBJECT = f"{ROOT}.{MARKS}.{SHARD}.owner"
POSITION_SUBJECT = f"{ROOT}.{MARKS}.{SHARD}.position"
BACKFILL_SUBJECT = f"{ROOT}.{MARKS}.{SHARD}.backfill"
SCHEMA_SUBJECT = f"{ROOT}.{MARKS}.{SHARD}.schema"
SNAPSHOT_SUBJECT = f"{ROOT}.{MARKS}.{SHARD}.snapshot"

DEAD_LETTERS = "zephyr-dead"
"""First token of the dead-letter stream's subjects."""

EPOCH_KEY = "zephyr-epoch"
"""Key of the epoch in the stream's metadata."""
FORMAT_KEY = "zephyr-format"
FORMAT = "1"

ID = "Zephyr-Id"
VERB = "Zephyr-Verb"
CHANGED = "Zephyr-Changed"
COMMIT = "Zephyr-Commit"
SCHEMA = "Zephyr-Schema"
ACTOR = "Zephyr-Actor"
CORRELATION = "Zephyr-Correlation"
TRACEPARENT = "traceparent"

# The fence (NATS 2.12 and later; ADR-50): the message is stored only while the owner
# mark is the one that its writer wrote.
FENCE_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
FENCE_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"

CREATED = "created"
UPDATED = "updated"
DELETED = "deleted"
TRUNCATED = "truncated"
ENTERED = "entered"
LEFT = "left"
REJECTED = "rejected"
"""A change whose row could not become an event: the entity's state is not known from here."""
READ = "read"
"""A row as a snapshot found it: its whole state, and no change of a transaction."""
ROW_VERBS = (CREATED, UPDATED, DELETED, TRUNCATED, ENTERED, LEFT, READ, REJECTED)
STATES = (CREATED, UPDATED, ENTERED, READ)
"""After these the row stands as the event says."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True, slots=True)
class Subject:
    """Where an event is published. ``entity`` is ``_`` for an event about all entities."""

    workspace: str
    kind: str
    entity: str
    suffix: Literal["row", "event"] = "row"
    shard: str = SHARD

    def __str__(self) -> str:
        return f"{ROOT}.{self.shard}.{self.workspace}.{self.kind}.{self.entity}.{self.suffix}"


def is_token(text: str) -> bool:
    """Whether ``text`` can stand as one token of a subject: letters, digits, ``-`` and ``_``."""
    return _TOKEN.match(text) is not None


def parse_subject(subject: str) -> Subject | None:
    """The parts of an event's subject; None for a mark.

    Raises:
        ValueError: the subject is neither an event's nor a mark's.
    """
    parts = subject.split(".")
    if len(parts) == 4 and parts[0] == ROOT and parts[1] == MARKS:
        return None
    if len(parts) != 6 or parts[0] != ROOT or parts[5] not in ("row", "event"):
        raise ValueError(f"not a subject of the stream: {subject!r}")
    suffix: Literal["row", "event"] = "row" if parts[5] == "row" else "event"
    return Subject(parts[2], parts[3], parts[4], suffix, parts[1])


@dataclass(frozen=True, slots=True, order=True)
class CommitPlace:
    """The place of a message in its transaction; ``count`` is set on the last message alone."""

    lsn: int
    index: int
    count: int = 0

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


PROGRESS = "zephyr.progress"
"""Prefix of the logical message that asks the bridge for a position mark at once."""


def backfill_subject(stream: str) -> str:
    """Where a bridge is asked for a backfill: no subject of the stream."""
    return f"zephyr_bridge.backfill.{stream}"
