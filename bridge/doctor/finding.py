"""One finding: what was looked at, how bad it is, what was found, why it matters, and the mend."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_UNSAFE = 1
EXIT_AWAY = 3
EXIT_BROKEN = 4


class Severity(enum.IntEnum):
    """How bad it is.

    ``NOTE``: worth knowing, nothing is lost by it. ``UNSAFE``: it runs, and a fault or a
    neighbour can lose, forge or stop events. ``BROKEN``: the bridge cannot run so, or its
    history is lost. ``AWAY``: the server did not answer, so that nothing is known of it.
    """

    OK = 0
    NOTE = 1
    UNSAFE = 2
    BROKEN = 3
    AWAY = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` names what was looked at, and stays the same from version to version.

    ``found`` is one sentence, ``why`` one clause; ``mend`` a statement or a command to run.
    The last two are empty where nothing has to be done.
    """

    check: str
    severity: Severity
    found: str
    why: str = ""
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "check": self.check,
            "severity": str(self.severity),
            "found": self.found,
            "why": self.why,
            "mend": self.mend,
        }


def ok(check: str, found: str) -> Finding:
    return Finding(check, Severity.OK, found)


def note(check: str, found: str, why: str, mend: str = "") -> Finding:
    return Finding(check, Severity.NOTE, found, why, mend)


def unsafe(check: str, found: str, why: str, mend: str) -> Finding:
    return Finding(check, Severity.UNSAFE, found, why, mend)


def broken(check: str, found: str, why: str, mend: str) -> Finding:
    return Finding(check, Severity.BROKEN, found, why, mend)


def away(check: str, found: str, mend: str) -> Finding:
    return Finding(check, Severity.AWAY, found, "nothing else can be known of it", mend)


def exit_code(findings: Iterable[Finding]) -> int:
    """What a command ends with: the worst decides. A server that is away goes before all, since
    the examination is not whole."""
    worst = max((finding.severity for finding in findings), default=Severity.OK)
    codes = {Severity.UNSAFE: EXIT_UNSAFE, Severity.BROKEN: EXIT_BROKEN, Severity.AWAY: EXIT_AWAY}
    return codes.get(worst, 0)
