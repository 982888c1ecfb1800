"""A connection that commits at random: what the stream must hold is told by the WAL, not by it.

Domain events and contexts among them, single rows and many, moves between workspaces, deletes that cascade, large values and updates
that leave them alone, transactions that roll back, and commits that stand side by side in the
WAL. A server that went away is tried again.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from dataclasses import dataclass

import psycopg
from psycopg import AsyncConnection

WORKSPACES = tuple(str(uuid.UUID(int=number << 96 | 0x4000_8000 << 48, version=4)) for number in (1, 2, 3))
_RETRY_S = 0.1
_PAUSE_S = 0.03
_AHEAD_PAUSE_S = 0.2
_MAX_NOTES = 2000
"""Above this, more is deleted than inserted."""

_LOGICAL = "SELECT pg_logical_emit_message(true, 'zephyr.{}', '{}')"

# The next note at or after a random place; none when that place is behind the last one.
_ONE = "(SELECT id FROM notes WHERE id >= '{at}' ORDER BY id LIMIT {count})"


@dataclass(slots=True)
class Load:
    """What the writers have done; ``stops`` ends them."""

    commits: int = 0
    rollbacks: int = 0
    stops: bool = False
    is_ahead: bool = False
    """Whether the bridge is so far behind that they should write less."""


class Writer:
    """Commits until it is to stop, from a seed."""

    def __init__(self, dsn: str, seed: int, load: Load) -> None:
        self._dsn = dsn
        self._chance = random.Random(seed)
        self._load = load

    async def run(self) -> None:
        """Whatever happens to the server."""
        while not self._load.stops:
            try:
                async with await AsyncConnection.connect(
                    self._dsn, autocommit=True, connect_timeout=5
                ) as connection:
                    while not self._load.stops:
                        await self.commit(connection)
                        # A load that a bridge on a busy machine can follow.
                        pause_s = _AHEAD_PAUSE_S if self._load.is_ahead else _PAUSE_S
                        await asyncio.sleep(self._chance.uniform(0, 2 * pause_s))
            except psycopg.OperationalError:
                # It went away, or two of us waited for each other.
                await asyncio.sleep(_RETRY_S)

    async def commit(self, connection: AsyncConnection) -> None:
        """One draw: mostly one transaction."""
        what = self._chance.choices(
            (self._small, self._many, self._adjacent, self._rolled_back), (70, 8, 12, 10)
        )[0]
        await what(connection)

    async def _small(self, connection: AsyncConnection) -> None:
        await self._run(connection, ["BEGIN", *self._statements(self._chance.randint(1, 5)), "COMMIT"])
        self._load.commits += 1

    async def _many(self, connection: AsyncConnection) -> None:
        count = self._chance.randint(10, 60)
        workspace = self._chance.choice(WORKSPACES)
        await self._run(
            connection,
            [
                "INSERT INTO notes (workspace_id, title, body)"
                f" SELECT '{workspace}', 'many ' || n, repeat('é', n) FROM generate_series(1, {count}) AS n"
            ],
        )
        self._load.commits += 1

    async def _adjacent(self, connection: AsyncConnection) -> None:
        """Transactions in one message, so that nothing stands between their commits."""
        count = self._chance.randint(2, 6)
        statements = [word for _ in range(count) for word in ("BEGIN", *self._statements(1), "COMMIT")]
        await self._run(connection, statements)
        self._load.commits += count

    async def _rolled_back(self, connection: AsyncConnection) -> None:
        await self._run(connection, ["BEGIN", *self._statements(3), "ROLLBACK"])
        self._load.rollbacks += 1

    async def _run(self, connection: AsyncConnection, statements: list[str]) -> None:
        try:
            await connection.execute("; ".join(statements).encode())
        except psycopg.OperationalError:
            if connection.closed:
                raise
            # A deadlock: the server gave this one up.
            await connection.execute("ROLLBACK")

    def _statements(self, count: int) -> list[str]:
        return [self._statement() for _ in range(count)]

    def _statement(self) -> str:
        chance = self._chance
        kinds = ("insert", "update", "touch", "move", "delete", "user", "member", "leave", "emit", "context")
        what = chance.choices(kinds, (22, 18, 14, 12, 16, 8, 6, 4, 10, 5))[0]
        one = _ONE.format(at=self._uuid(), count=1)
        workspace = chance.choice(WORKSPACES)
        if what == "insert":
            return (
                "INSERT INTO notes (id, workspace_id, title, body) VALUES"
                f" ('{self._uuid()}', '{workspace}', 'é{chance.randrange(10**6)}', {self._body()})"
            )
        if what == "update":
            return f"UPDATE notes SET body = {self._body()} WHERE id = {one}"
        if what == "touch":
            # Leaves a large body where it is.
            return f"UPDATE notes SET title = 't{chance.randrange(10**6)}' WHERE id = {one}"
        if what == "move":
            return f"UPDATE notes SET workspace_id = '{workspace}' WHERE id = {one}"
        if what == "delete":
            over = f"CASE WHEN (SELECT count(*) FROM notes) > {_MAX_NOTES} THEN 60 ELSE 1 END"
            return f"DELETE FROM notes WHERE id IN {_ONE.format(at=self._uuid(), count=over)}"
        if what == "emit":
            return self._emit(workspace)
        if what == "context":
            return _LOGICAL.format("context", f'{{"actor": "a{chance.randrange(10**6)}"}}')
        user = self._uuid()
        if what == "user":
            return f"INSERT INTO users (id, email) VALUES ('{user}', '{user}@example.org')"
        if what == "member":
            return (
                f"WITH u AS (INSERT INTO users (id, email) VALUES ('{user}', '{user}') RETURNING id)"
                f" INSERT INTO memberships (workspace_id, user_id) SELECT '{workspace}', '{user}'"
            )
        # Takes its membership along.
        return f"DELETE FROM users WHERE id = (SELECT id FROM users WHERE id >= '{user}' ORDER BY id LIMIT 1)"

    def _emit(self, workspace: str) -> str:
        """A domain event; now and then what is none, or one that is rolled back by itself."""
        what = self._chance.choices(("event", "none", "rolled back"), (80, 10, 10))[0]
        said: dict[str, object] = {"workspaceId": workspace, "kind": "note", "entityId": self._uuid()}
        said |= {"verb": "shared", "note": {"title": f"é{self._chance.randrange(10**6)}"}}
        event = _LOGICAL.format("event", "{" if what == "none" else json.dumps(said))
        if what != "rolled back":
            return event
        return f"SAVEPOINT s; {event}; {_LOGICAL.format('context', '{}')}; ROLLBACK TO s"

    def _body(self) -> str:
        size = self._chance.choices((0, 200, 3000, 60_000), (40, 40, 15, 5))[0]
        # Random digits, which hardly shrink: large ones are stored beside the row, in TOAST.
        return f"'{self._chance.getrandbits(4 * size):0{size}x}'" if size else "''"

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
