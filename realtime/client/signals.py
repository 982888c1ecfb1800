"""What an iteration says beside events, to those that asked for it.

A snapshot always says where it begins and ends: what was folded before a ``SnapshotBegins`` is
void. All others come with ``signals=True``; ``ScopeChanged`` and ``GapPassed`` also in a
subscription that began with a snapshot or goes on over gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1.stream_pb2 import SourcePosition


@dataclass(frozen=True, slots=True)
class SnapshotBegins:
    """The present state follows. Drop what was folded until now: it is void.

    ``reason`` is empty the first time; after that why there is another one: ``CONNECTION_LOST`` in
    the middle of a snapshot, or that of a reset (``EXPIRED``, ``EPOCH_CHANGED``, ``HISTORY_REWRITTEN``).
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotEnds:
    """What was folded since ``SnapshotBegins`` is the state at ``cursor``; events follow from there."""

    cursor: bytes
    items: int


@dataclass(frozen=True, slots=True)
class GapPassed:
    """Messages after ``after`` up to ``through`` are gone from the stream, and were not seen."""

    after: int
    through: int


@dataclass(frozen=True, slots=True)
class ScopeChanged:
    """What the caller may see became less; the rest goes on."""

    lost_workspaces: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The live edge is reached."""

    source: SourcePosition


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The live edge is lost: what follows is read back from the stream."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """Another connection goes on where the one before ended."""

    cause: str


@dataclass(frozen=True, slots=True)
class AuthExpiring:
    """The authorization ends at ``expires_at`` (Unix time in microseconds; 0: never)."""

    expires_at: int


Signal = (
    SnapshotBegins
    | SnapshotEnds
    | GapPassed
    | ScopeChanged
    | CaughtUp
    | FellBehind
    | Reconnected
    | AuthExpiring
)
