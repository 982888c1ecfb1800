"""Which position the slot may be confirmed to.

Postgres forgets what is confirmed, so the ledger gives out only what the stream holds: a
position mark was stored that covers it, and the hold-back has passed since. The hold-back
is the time for which the broker may lose what it has acknowledged (its ``sync_interval``);
a source that still has the WAL of that time can store it again.

No I/O and no clock of its own: times are seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque

_BUCKETS = 64
"""At most two entries are kept for each 1/64 of the hold-back: what was stored closer together counts as one."""


class Ledger:
    """Stored positions and when they may be confirmed. Positions never go back."""

    def __init__(self, hold_back_s: float) -> None:
        self.hold_back_s = hold_back_s
        self._held: deque[tuple[float, int]] = deque()
        self._confirmed = 0

    def stored(self, lsn: int, now_s: float) -> None:
        """Everything before ``lsn`` stands in the stream, or does not concern it.

        Raises:
            ValueError: ``lsn`` is before one that was stored earlier.
        """
        last = self._held[-1][1] if self._held else self._confirmed
        if lsn < last:
            raise ValueError(f"position {lsn:X} was stored after {last:X}")
        if lsn == last:
            return
        # What has been held long enough goes now, so that the bound holds whoever asks, and when.
        self.confirmable(now_s)
        # A bucket counts from its youngest member: it is held longer, never shorter.
        width = self.hold_back_s / _BUCKETS
        if len(self._held) > 1 and now_s - self._held[-2][0] < width:
            self._held[-1] = (now_s, lsn)
        else:
            self._held.append((now_s, lsn))

    def confirmable(self, now_s: float) -> int:
        """The position to confirm now; 0 while there is none."""
        while self._held and now_s - self._held[0][0] >= self.hold_back_s:
            self._confirmed = self._held.popleft()[1]
        return self._confirmed

    @property
    def held_back(self) -> int:
        """How many bytes of WAL are stored and not yet confirmed; 0 before the first confirmation."""
        return self._held[-1][1] - self._confirmed if self._held and self._confirmed else 0

    def held_for_s(self, now_s: float) -> float:
        """For how long the oldest of them has been held; 0 when none is."""
        return max(0.0, now_s - self._held[0][0]) if self._held else 0.0

    def __len__(self) -> int:
        return len(self._held)
