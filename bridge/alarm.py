"""When to speak of a condition that lasts: at once, then ever more seldom, and when it is over.

No I/O and no clock of its own: times are seconds of any monotonic clock.
"""

from __future__ import annotations

from enum import Enum

_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0


class Word(Enum):
    """What there is to say now."""

    RAISED = "raised"
    CLEARED = "cleared"


class Alarm:
    """One condition. Said again after a pause that doubles each time, up to an hour."""

    def __init__(
        self, first_pause_s: float = _FIRST_PAUSE_S, longest_pause_s: float = _LONGEST_PAUSE_S
    ) -> None:
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._pause_s = first_pause_s
        self._say_at: float | None = None

    @property
    def raised(self) -> bool:
        return self._say_at is not None

    def check(self, is_so: bool, now_s: float) -> Word | None:
        """Tells whether the condition holds now; gives what is to be said of it, mostly nothing."""
        if not is_so:
            was_raised, self._say_at, self._pause_s = self.raised, None, self._first_pause_s
            return Word.CLEARED if was_raised else None
        if self._say_at is not None and now_s < self._say_at:
            return None
        self._say_at = now_s + self._pause_s
        self._pause_s = min(self._pause_s * 2, self._longest_pause_s)
        return Word.RAISED
