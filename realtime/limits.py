"""Bounds of what waits for a client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """Bounds of one mailbox: of what was read back for it, and of what it may leave untaken at the live edge.
    When ``max_controls`` control frames wait, a gap is refused as an event is."""

    max_events: int = 4096
    max_bytes: int = 4 * 1024 * 1024
    max_controls: int = 100
