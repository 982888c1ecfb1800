"""How much a publisher may have under way: it grows while the broker keeps up, and shrinks when it does not. No I/O."""

from __future__ import annotations

from realtime.errors import LimitExceeded

_KIB = 1024
_LEAST_EVENTS, _FIRST_EVENTS, _MOST_EVENTS = 256, 4096, 16_384
_LEAST_BYTES, _FIRST_BYTES, _MOST_BYTES = 256 * _KIB, 2048 * _KIB, 16_384 * _KIB
_SLOW_S = 1.0
_QUICK_S = 0.25


class Allowance:
    """What all windows of a server may allow together, in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, size: int) -> bool:
        """Whether so many bytes were left; then they are taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Bytes that were taken."""
        self._left += size


class Window:
    """Of one stream. ``close`` it at the end.

    Raises:
        LimitExceeded: too many publish already.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self.events = _FIRST_EVENTS
        self.bytes = 0
        for size in (_FIRST_BYTES, _LEAST_BYTES):
            if allowance.take(size):
                self.bytes = size
                break
        else:
            raise LimitExceeded("too many publish to this server", "publish to another server")
        self._seen = 0

    def close(self) -> None:
        """Gives back what it allowed."""
        self._allowance.give_back(self.bytes)
        self.bytes = 0

    def has_room(self, events: int, size: int) -> bool:
        """Whether more may be read while so much is under way. One request may go beyond it."""
        return events < self.events and size < self.bytes

    def note(self, batches: int, batch_s: float, events: int, size: int) -> bool:
        """A batch was stored in so many seconds, while so much was under way. Whether the window is another now.

        ``batches`` counts them, so that each is noted once.
        """
        if batches == self._seen:
            return False
        self._seen = batches
        if batch_s > _SLOW_S:
            return self._become(self.events // 2, self.bytes // 2)
        is_used = events * 2 > self.events or size * 2 > self.bytes
        if batch_s < _QUICK_S and is_used:
            return self._become(self.events * 2, self.bytes * 2)
        return False

    def _become(self, events: int, size: int) -> bool:
        events = min(_MOST_EVENTS, max(_LEAST_EVENTS, events))
        size = min(_MOST_BYTES, max(_LEAST_BYTES, size))
        if size > self.bytes and not self._allowance.take(size - self.bytes):
            size = self.bytes
        elif size < self.bytes:
            self._allowance.give_back(self.bytes - size)
        is_other = (events, size) != (self.events, self.bytes)
        self.events, self.bytes = events, size
        return is_other
