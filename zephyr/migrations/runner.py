"""Brings a database to the newest revision of the schema.

One connection takes an advisory lock, then runs what is missing in one transaction
(``upgrade.py``), so that two runs at once wait for each other and the second finds nothing to
do. Whatever goes wrong is one ``MigrationError``, and the database is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

VERSION_TABLE = "zephyr_migrations"
# Any number that nothing else takes as an advisory lock: "zephyr" in ASCII.
LOCK_KEY = 0x7A6570687972
LOCK_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 10

# What libpq says when a server answered and refused, by a piece of its message: no
# SQLSTATE is given for a connection that was never made.
REFUSALS = (
    ("pg_hba.conf", "allow this user, host and database in the server's pg_hba.conf"),
    ("permission denied", "GRANT CONNECT ON DATABASE to the user, or name another user"),
    ("password", "check the user and password in ZEPHYR_POSTGRES_DSN"),
    ("role", "create the role, or name another one in ZEPHYR_POSTGRES_DSN"),
    ("database", "create the database (createdb), or name another one in ZEPHYR_POSTGRES_DSN"),
)
# Refusals that pass by themselves.
NOT_NOW = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots")


class MigrationError(Exception):
    """The schema could not be brought to the newest revision; nothing was changed.

    ``exit_code`` is 2 for a DSN that cannot be read, 3 when the server cannot be reached,
    4 when it answers and is not as it must be.
    """

    def __init__(self, message: str, mend: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.exit_code = exit_code


def migrate(dsn: str, on_step: Callable[[str], None] | None = None) -> list[str]:
    """Applies the revisions that are missing and gives their ids, the oldest first.

    ``dsn`` is a URL or ``key=value`` pairs, as libpq takes them. ``on_step`` is called with
    each revision's id and title as it is applied; all are committed together at the end.

    Raises:
        MigrationError: the one error of this function.
    """
    # Alembic takes longer to import than all else that the command line needs.
    from zephyr.migrations.upgrade import upgrade

    with _connect(dsn) as connection:
        try:
            return upgrade(connection, on_step)
        except psycopg.Error as exc:
            raise _failure(exc) from exc


def _connect(dsn: str) -> psycopg.Connection[Any]:
    try:
        given = conninfo_to_dict(dsn)
        given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
        given.setdefault("fallback_application_name", "zephyr migrate")
        conninfo = make_conninfo("", **given)
    except (psycopg.ProgrammingError, UnicodeDecodeError) as exc:
        raise MigrationError(
            # Their messages may quote the DSN and with it a password: they are left out.
            "the Postgres DSN cannot be read",
            "write it as postgresql://user:password@host:port/database, or as host=… port=… dbname=… user=…",
            2,
        ) from exc
    try:
        return psycopg.connect(conninfo)
    except psycopg.OperationalError as exc:
        raise connection_error(exc, given) from exc


def connection_error(exc: psycopg.OperationalError, given: dict[str, Any]) -> MigrationError:
    """What a connection that was not made means; no secret is quoted."""
    reason = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
    host = given.get("host") or given.get("hostaddr") or "the local socket"
    where = f"{host}:{given.get('port') or 5432}"
    _, fatal, said = reason.partition("FATAL:")
    if fatal and not any(word in said for word in NOT_NOW):
        mend = next((mend for word, mend in REFUSALS if word in said), "see the server's log")
        return MigrationError(f"Postgres at {where} refused the connection: {said.strip()}", mend, 4)
    if "no password supplied" in reason:
        return MigrationError(
            f"Postgres at {where} asks for a password and none is given",
            "check the user and password in ZEPHYR_POSTGRES_DSN",
            4,
        )
    return MigrationError(
        f"Postgres at {where} cannot be reached: {said.strip() or reason.rpartition('failed: ')[2]}",
        "start it, or set ZEPHYR_POSTGRES_DSN to a server that runs",
        3,
    )


def _failure(error: psycopg.Error) -> MigrationError:
    """The error of a statement; the transaction was rolled back."""
    said = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
    match error:
        case psycopg.errors.DuplicateTable() | psycopg.errors.DuplicateFunction():
            return MigrationError(
                f"the database has something else by a name that Zephyr needs: {said}",
                "migrate an empty database, or keep your own tables, declare them in a mapping file "
                "(docs/mapping.md) and leave out `zephyr migrate`",
                4,
            )
        case psycopg.errors.InsufficientPrivilege():
            return MigrationError(
                f"the database user may not change the schema: {said}",
                "migrate as the owner of the database, or GRANT CREATE ON SCHEMA public to the user",
                4,
            )
        case psycopg.errors.LockNotAvailable():
            return MigrationError(
                f"a lock was not given within {LOCK_TIMEOUT_S} s: another migration or a long transaction holds it",
                "end it (see pg_stat_activity and pg_locks), then migrate again",
                4,
            )
        case psycopg.OperationalError():
            return MigrationError(
                f"the connection to Postgres broke: {said}", "migrate again: nothing was changed", 3
            )
        case _:
            return MigrationError(
                f"the migration failed: {said}", "see the server's log; nothing was changed", 4
            )
