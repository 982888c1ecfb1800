"""Where one subscription stands among those that want to send on its connection (``services/turns.py``)."""

from __future__ import annotations


class Turn:
    """``debt`` is what it sent beyond its share, in bytes; ``sent_at`` when it sent last, by the loop's clock."""

    __slots__ = ("debt", "is_in_row", "sent_at")

    def __init__(self) -> None:
        self.is_in_row = False
        self.debt = 0
        self.sent_at = 0.0
