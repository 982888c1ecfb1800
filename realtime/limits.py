"""Bounds of what waits for a client."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """Bounds of one mailbox: of what was read back for it, and of what it may leave untaken at the live edge.
    When ``max_controls`` control frames wait, a gap is refused as an event is."""

    max_events: int = 4096
    max_bytes: int = 4 * 1024 * 1024
    max_controls: int = 100


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of one client's stream. ``progress_s`` is the longest silence on it; ``max_bytes`` bounds what
    was read back for all of its subscriptions."""

    max_subscriptions: int = 100
    max_answers: int = 200
    progress_s: float = 10.0
    max_bytes: int = 16 * 1024 * 1024
    mailbox: MailboxLimits = field(default_factory=MailboxLimits)
