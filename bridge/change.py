"""What passes through the bridge: positions, relations, row changes.

A transaction is never held whole: the decoder gives ``Begin``, one ``RowChange`` or
``Truncate`` after the other, and ``Commit``, so that a transaction of a million rows
costs the memory of one. What is made for every row is a plain class: a named tuple takes
twice its time, compiled eight times, and a frozen dataclass more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Unchanged(Enum):
    """Stands for a large value that an update left alone and that the WAL does not repeat."""

    TOAST = "unchanged"


Value = str | Unchanged | None
"""One column in Postgres' text format; None is NULL."""


class Position(NamedTuple):
    """A place in the source: the commit record's WAL position, and the index in the transaction.

    ``complete`` says that the transaction has nothing after ``index``.
    """

    lsn: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody calls
    complete: bool = True

    def covers(self, lsn: int, index: int) -> bool:
        """Whether the change at (lsn, index) stands at or before this place."""
        return lsn < self.lsn or (lsn == self.lsn and (self.complete or index <= self.index))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation as the WAL describes it."""

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the rows after it were written. ``replica_identity`` is d, n, f or i."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


class Begin:
    """A transaction begins; ``commit_lsn`` is where its commit record stands."""

    __slots__ = ("commit_lsn", "commit_time_us", "xid")

    def __init__(self, commit_lsn: int, commit_time_us: int, xid: int) -> None:
        self.commit_lsn = commit_lsn
        self.commit_time_us = commit_time_us
        self.xid = xid

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Begin)
            and self.commit_lsn == other.commit_lsn
            and self.commit_time_us == other.commit_time_us
            and self.xid == other.xid
        )

    __hash__ = None  # type: ignore[assignment]  # it is compared in tests, and never a key

    def __repr__(self) -> str:
        return f"Begin({self.commit_lsn!r}, {self.commit_time_us!r}, {self.xid!r})"


class Operation(Enum):
    """What happened to a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class RowChange:
    """One row changed. ``old`` is the row before (None for an insert), ``new`` the row after
    (None for a delete); values stand in the order of ``relation.columns``."""

    __slots__ = ("new", "old", "operation", "relation")

    def __init__(
        self,
        operation: Operation,
        relation: Relation,
        old: tuple[Value, ...] | None,
        new: tuple[Value, ...] | None,
    ) -> None:
        self.operation = operation
        self.relation = relation
        self.old = old
        self.new = new

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RowChange)
            and self.operation == other.operation
            and self.relation == other.relation
            and self.old == other.old
            and self.new == other.new
        )

    __hash__ = None  # type: ignore[assignment]  # it is compared in tests, and never a key

    def __repr__(self) -> str:
        return f"RowChange({self.operation!r}, {self.relation!r}, {self.old!r}, {self.new!r})"


@dataclass(frozen=True, slots=True)
class Truncate:
    """All rows of some tables went."""

    relations: tuple[Relation, ...]


class Commit:
    """A transaction ended. The slot may be confirmed to exactly ``end_lsn``."""

    __slots__ = ("commit_lsn", "commit_time_us", "end_lsn")

    def __init__(self, commit_lsn: int, end_lsn: int, commit_time_us: int) -> None:
        self.commit_lsn = commit_lsn
        self.end_lsn = end_lsn
        self.commit_time_us = commit_time_us

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Commit)
            and self.commit_lsn == other.commit_lsn
            and self.end_lsn == other.end_lsn
            and self.commit_time_us == other.commit_time_us
        )

    __hash__ = None  # type: ignore[assignment]  # it is compared in tests, and never a key

    def __repr__(self) -> str:
        return f"Commit({self.commit_lsn!r}, {self.end_lsn!r}, {self.commit_time_us!r})"


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What ``pg_logical_emit_message`` wrote, where ``prefix`` is one of ours (``zephyr.``).

    ``lsn`` is the message's own WAL position. A transactional one stands between ``Begin`` and
    ``Commit``, any other between two transactions or in the midst of one that it is no part of.
    """

    prefix: str
    content: bytes
    lsn: int
    transactional: bool


Message = Begin | RowChange | Truncate | Commit | Relation | LogicalMessage
