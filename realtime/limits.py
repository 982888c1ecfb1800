"""Bounds of what waits for a client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """Bounds of one mailbox: of what was read back for it, and of what it may leave untaken at the live edge."""

    max_events: int = 4096
    max_bytes: int = 4 * 1024 * 1024
