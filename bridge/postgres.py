"""What Postgres says of itself, and its errors as ours: translated once, where they enter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg

from bridge.errors import SettingInvalid, SourceUnfit, Unreachable

# libpq looks at these values only when it connects, and calls that a connection that failed.
_WRONG_OPTION = re.compile(
    r'invalid integer value "[^"]*" for connection option "(?P<integer>\w+)"'
    r'|invalid (?P<choice>\w+) (?:value|number): "'
    r"|could not match \d+ (?P<count>port) numbers"
    r"|failed to resolve host .*Servname not supported"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Who the server says it is. ``wal_lsn`` is where its WAL was flushed to.

    ``history``: where each timeline before its own was left (timeline.py); None when it cannot be known.
    """

    system_id: str
    timeline: int
    wal_lsn: int
    database: str
    history: Mapping[int, int] | None = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlotState:
    """The slot as the server keeps it. ``confirmed_lsn`` is where it goes on after."""

    confirmed_lsn: int
    active_pid: int | None


def translate(exc: psycopg.Error) -> Unreachable | SourceUnfit | SettingInvalid:
    """A psycopg error as ours: ``SourceUnfit`` when trying again cannot help."""
    line = one_line(exc)
    wrong = _WRONG_OPTION.search(line)
    if wrong is not None or isinstance(exc, psycopg.ProgrammingError):
        # libpq's own words may quote the DSN, and with it a password: they are left out. So may the
        # value of a port: a slash in a password makes the text before it one.
        where = (
            f" in its {wrong[wrong.lastgroup] if wrong.lastgroup else 'port'}" if wrong is not None else ""
        )
        return SettingInvalid(
            f"ZEPHYR_POSTGRES_DSN is malformed{where}", "write postgresql://user@host:port/database"
        )
    if (
        "authentication" in line
        or "does not exist" in line
        or "permission denied" in line
        or "pg_hba" in line
    ):
        return SourceUnfit(f"Postgres refused the connection: {line}", "correct ZEPHYR_POSTGRES_DSN")
    return Unreachable(f"Postgres cannot be reached: {line}", "start it, or correct ZEPHYR_POSTGRES_DSN")


def parse_lsn(text: str) -> int:
    """``16/B3748`` as one number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def mend_of(exc: psycopg.Error) -> str:
    """What to do about a statement that the server refused; empty where nothing is known."""
    if "wal_level" in str(exc):
        return "run: ALTER SYSTEM SET wal_level = logical; then restart Postgres"
    if "all replication slots are in use" in str(exc):
        return "drop a slot that is not needed, or raise max_replication_slots"
    if "permission denied" in str(exc) or "must be" in str(exc):
        return "give the role REPLICATION, and ownership of the published tables"
    return ""


def one_line(exc: BaseException) -> str:
    """An error's text in one line."""
    return " ".join(str(exc).split())
