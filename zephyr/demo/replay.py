"""Writes a history into Postgres: each commit is one transaction, its statements in one pipeline.

Before COMMIT is sent, the events that it must give are written down, since they may arrive before
its answer does. Postgres may go away at any point. A transaction that was cut before its COMMIT is
sent again; one that was cut during COMMIT may have happened, and is looked for first: once the
server has nothing more to do with it (``pg_xact_status``), the row that it wrote is there or is not.
The row decides and not the status, because after a crash the same transaction id may be given to
somebody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from psycopg import errors

from zephyr.console import CommandError
from zephyr.demo import sql
from zephyr.demo.expected import Expected
from zephyr.demo.history import CommitChanges, History
from zephyr.demo.plan import Plan, Transaction, User, address

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_TRANSIENT = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.TooManyConnections,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)
_REFUSALS = (
    "does not exist",
    "authentication failed",
    "no password supplied",
    "pg_hba.conf",
    "not permitted",
)


@dataclass(slots=True)
class Progress:
    """How far the replay is. ``recent`` has the last changes: author, verb, path."""

    commits: int = 0
    trouble: str = ""
    """Why it waits for Postgres; empty when it does not."""
    retries: int = 0
    recent: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=6))


class Replay:
    """One run. ``may_write`` is awaited before each commit with the number of those before it."""

    def __init__(
        self,
        dsn: str,
        history: History,
        plan: Plan,
        expected: Expected,
        may_write: Callable[[int], Awaitable[None]],
    ) -> None:
        self.progress = Progress()
        self._dsn = dsn
        self._history = history
        self._plan = plan
        self._expected = expected
        self._may_write = may_write
        self._connection: psycopg.AsyncConnection | None = None

    async def run(self) -> None:
        """Writes all of it. A Postgres that went away is waited for without end.

        Raises:
            CommandError: Postgres refuses a statement, or the history cannot be read.
        """
        try:
            await self._write(self._plan.workspace())
            commits = self._history.commits()
            try:
                async for commit in commits:
                    await self._may_write(self.progress.commits)
                    found = None if self._plan.is_known(commit) else await self._find_user(address(commit))
                    await self._write(self._plan.transaction(commit, found))
                    self._note(commit)
            finally:
                await commits.aclose()
        finally:
            await self._disconnect()

    def _note(self, commit: CommitChanges) -> None:
        self.progress.commits += 1
        for change in commit.changes[-6:]:
            self.progress.recent.append((commit.author_name, change.action.value, change.path))

    async def _find_user(self, email: str) -> User | None:
        async def find(connection: psycopg.AsyncConnection) -> User | None:
            row = await (await connection.execute(sql.FIND_USER, (email,))).fetchone()
            return None if row is None else User(*row)

        return await self._insist(find)

    async def _write(self, transaction: Transaction) -> None:
        sending = _Sending(transaction, self._expected)
        await self._insist(sending.send)

    async def _insist(self, act: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
        """What ``act`` gives once it got through; called again with a new connection when one was lost."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                result = await act(await self._connect())
            except psycopg.Error as exc:
                # An error without a state is libpq's or psycopg's own: the connection ended under them.
                is_local = isinstance(exc, psycopg.OperationalError) and exc.sqlstate is None
                lost = self._connection is None or self._connection.broken or is_local
                passing = lost or isinstance(exc, _TRANSIENT)
                await self._disconnect()
                cause = _first_line(exc)
                if not passing or _is_refusal(exc):
                    raise CommandError(
                        f"Postgres refuses what the demo writes: {cause}", "run it on a database of its own"
                    ) from exc
                self.progress.trouble = cause
                self.progress.retries += 1
            else:
                self.progress.trouble = ""
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _connect(self) -> psycopg.AsyncConnection:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="zephyr demo",
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class _Sending:
    """One transaction on its way: sent until it is known to have happened, and that once."""

    def __init__(self, transaction: Transaction, expected: Expected) -> None:
        self._transaction = transaction
        self._expected = expected
        self._is_expected = False
        # Set while COMMIT may or may not have happened.
        self._doubtful_xid: str | None = None

    async def send(self, connection: psycopg.AsyncConnection) -> None:
        """One try. To be called again after a psycopg.Error that passes."""
        if self._doubtful_xid is not None:
            if await self._has_happened(connection, self._doubtful_xid):
                return
            self._doubtful_xid = None
        async with connection.pipeline():
            await connection.execute("BEGIN")
            for statement, parameters in self._transaction.statements:
                await connection.execute(statement, parameters)
            cursor = await connection.execute(sql.CURRENT_TRANSACTION)
        row = await cursor.fetchone()
        if not self._is_expected:
            self._expected.extend(self._transaction.events)
            self._is_expected = True
        self._doubtful_xid = row[0] if row else ""
        await connection.execute("COMMIT")

    async def _has_happened(self, connection: psycopg.AsyncConnection, xid: str) -> bool:
        # Postgres tells nobody when a transaction ends: it has to be asked again.
        while await _status(connection, xid) == "in progress":  # noqa: ASYNC110
            await asyncio.sleep(_FIRST_PAUSE_S)
        events = self._transaction.events
        if not events:
            return True  # Nothing was written, so there is nothing to find, or to write again.
        # Another writer may touch a user, nobody else the rows of this workspace.
        witness = next((event for event in events if event.kind != "user"), events[0])
        found = await (
            await connection.execute(sql.VERSION_OF[witness.kind], (witness.entity_id,))
        ).fetchone()
        if witness.verb == "deleted":
            return found is None
        return found is not None and bool(found[0] >= witness.version)


async def _status(connection: psycopg.AsyncConnection, xid: str) -> str | None:
    try:
        row = await (await connection.execute(sql.TRANSACTION_STATUS, (xid,))).fetchone()
    except errors.InvalidParameterValue:
        # "in the future": a crash took the transaction, and its id with it.
        return None
    return row[0] if row else None


def _is_refusal(exc: psycopg.Error) -> bool:
    """Whether a connection was refused for a reason that does not pass; libpq gives text alone then."""
    said = str(exc)
    return exc.sqlstate is None and any(words in said for words in _REFUSALS)


def _first_line(exc: psycopg.Error) -> str:
    return next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__).strip()
