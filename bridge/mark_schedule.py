"""When a mark must be written again, so that no limit of the stream evicts it.

A stream forgets its oldest messages by number, bytes or age, and with its last mark it would
forget who owns it, or what it holds. So a mark may stand a quarter of each limit from the
stream's end, and no further: it leaves the stream only after four such stretches.
"""

from __future__ import annotations

import time

from bridge.stream import StreamState


class MarkSchedule:
    """How far one mark is from the stream's end, and how far it may be. ``sequence`` is where it stands."""

    def __init__(self, limits: StreamState) -> None:
        self._max_msgs = limits.max_msgs
        self._max_bytes = limits.max_bytes
        self._max_age_s = limits.max_age_s
        self._written_at = 0.0
        self._bytes_since = 0
        self.messages_since = 0
        """How many messages of the bridge follow it, as far as this term knows."""
        self.sequence = 0

    @property
    def age_s(self) -> float:
        """For how long it stands there, as far as this term knows."""
        return time.monotonic() - self._written_at

    def found(self, sequence: int) -> None:
        """An earlier term wrote it."""
        self.sequence = sequence
        self._written_at = time.monotonic()

    def written(self, sequence: int) -> None:
        """It is the last message of the stream."""
        self.found(sequence)
        self._bytes_since = self.messages_since = 0

    def stored(self, size: int, own: int) -> None:
        """So many bytes were stored, whatever messages they are: marks push each other out too, and others'
        messages push both. ``own`` of them are the bridge's messages."""
        self._bytes_since += size
        self.messages_since += own

    def is_due(self, last_sequence: int, incoming: int, incoming_bytes: int) -> bool:
        """Whether it must be written again before so many messages and bytes follow ``last_sequence``."""
        # Not below three, or the two marks of an idle source would take turns in making each other due.
        count = last_sequence - self.sequence + incoming
        if self._max_msgs and count >= max(3, self._max_msgs // 4):
            return True
        if self._max_bytes and self._bytes_since + incoming_bytes >= self._max_bytes // 4:
            return True
        return bool(self._max_age_s) and self.age_s >= self._max_age_s / 4
