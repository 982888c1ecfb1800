"""How far a server's clock is from ours, as well as a round trip lets one know.

The server read its clock at some moment between the question and the answer: its offset is
known to half of that time. Three clocks are compared; when two agree it is the third.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bridge.doctor.finding import Finding, note, ok, unsafe
from bridge.doctor.words import time_text

NOTE_S = 1.0
UNSAFE_S = 30.0
_WHY = "times in events and marks, latencies and the stream's age limit are read from different clocks"
_MEND = "let a time service (chrony, systemd-timesyncd) set the clocks of all machines"


@dataclass(frozen=True, slots=True)
class Clock:
    """``ahead_s`` of ours (negative: behind), give or take ``uncertain_s``."""

    ahead_s: float
    uncertain_s: float

    @property
    def apart_s(self) -> float:
        """How far the clocks are apart for certain."""
        return max(0.0, abs(self.ahead_s) - self.uncertain_s)


def offset_of(server_s: float, asked_s: float, answered_s: float) -> Clock:
    """The clock of a server that read ``server_s`` between the two moments of ours."""
    return Clock(server_s - (asked_s + answered_s) / 2, max(0.0, answered_s - asked_s) / 2)


def check_clocks(clocks: dict[str, Clock]) -> Iterator[Finding]:
    """Servers' clocks against ours, by the server's name."""
    if len(clocks) > 1 and _ours_is_off(list(clocks.values())):
        clock = max(clocks.values(), key=lambda each: each.apart_s)
        direction = "behind" if clock.ahead_s > 0 else "ahead of"
        yield _judge("clock.here", clock, f"this machine's clock is {{}} {direction} {' and '.join(clocks)}")
        return
    for name, clock in clocks.items():
        direction = "ahead of" if clock.ahead_s > 0 else "behind"
        yield _judge(
            f"clock.{name.lower()}", clock, f"the clock of {name} is {{}} {direction} this machine's"
        )


def _ours_is_off(clocks: list[Clock]) -> bool:
    ahead = [clock.ahead_s for clock in clocks]
    slack = NOTE_S + sum(clock.uncertain_s for clock in clocks)
    return all(clock.apart_s > NOTE_S for clock in clocks) and max(ahead) - min(ahead) <= slack


def _judge(check: str, clock: Clock, found: str) -> Finding:
    apart_s = clock.apart_s
    if apart_s > UNSAFE_S:
        return unsafe(check, found.format(time_text(apart_s)), _WHY, _MEND)
    if apart_s > NOTE_S:
        return note(check, found.format(time_text(apart_s)), _WHY, _MEND)
    return ok(check, found.format("at most a second"))
