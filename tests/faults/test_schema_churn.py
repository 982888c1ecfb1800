"""Tables are altered without pause while others write to them and the bridge is killed.

The oracle reads the WAL itself, each row under the version of its table that stands before it
there: every change is to be in the stream once, in its place, with the values of that version.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.faults.test_verified import LONG, SEED
from zephyr.verify.field import Field, open_field
from zephyr.verify.run import FAULTS
from zephyr.verify.wait import until

EXIT_UNFIT = 4
TYPES = ("integer", "bigint", "numeric", "text", "bytea", "jsonb", "text[]")
MAPPED_TYPES = {
    # Types that the fields hold as well. Not the version's: the trigger that counts it has its plan for one type,
    # and the writers' sessions would fail.
    "users": (("display_name", "varchar(200)", "text"), ("email", "varchar(200)", "text")),
    "notes": (("body", "varchar(70000)", "text"), ("title", "varchar(200)", "text")),
}
SPOKEN = "a mapped table was altered"
PAUSED = "paused until"


class Churn:
    """Alters users and notes at random from a seed, in columns that the mapping leaves alone and in
    ways that it does not notice."""

    def __init__(self, connection: AsyncConnection, chance: random.Random) -> None:
        self._connection = connection
        self._chance = chance
        self._columns: dict[str, list[str]] = {"users": [], "notes": []}
        self._made = 0
        self.done: set[str] = set()
        """The ways that were used."""

    async def step(self) -> None:
        """One draw, committed unless it is one that rolls back."""
        table = self._chance.choice(("users", "notes"))
        ways: list[Callable[[str], list[str]]] = [self._add, self._default, self._mapped, self._undone]
        if self._columns[table]:
            ways += [self._drop, self._rename, self._retype, self._not_null, self._within, self._fill]
        if len(self._columns[table]) > 6:
            ways = [self._drop]
        way = self._chance.choice(ways)
        before = list(self._columns[table])
        statements = "; ".join(way(table))
        while True:
            try:
                await self._connection.execute(statements.encode())
            except psycopg.errors.DeadlockDetected:
                # A writer and we waited for each other, and the server gave this one up.
                await self._connection.execute("ROLLBACK")
            except BaseException:
                self._columns[table] = before
                raise
            else:
                break
        self.done.add(way.__name__)

    async def tidy(self) -> None:
        """Drops what it added, so that the tables are again what the oracle compares."""
        for table, columns in self._columns.items():
            for column in columns:
                await self._connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}".encode())

    def _add(self, table: str) -> list[str]:
        column, kind = self._new(table), self._chance.choice(TYPES)
        extra = self._chance.choice(("", " DEFAULT NULL", f" NOT NULL DEFAULT {_some(kind)}"))
        return [f"ALTER TABLE {table} ADD COLUMN {column} {kind}{extra}"]

    def _drop(self, table: str) -> list[str]:
        column = self._chance.choice(self._columns[table])
        self._columns[table].remove(column)
        return [f"ALTER TABLE {table} DROP COLUMN {column}"]

    def _rename(self, table: str) -> list[str]:
        column = self._chance.choice(self._columns[table])
        self._columns[table].remove(column)
        return [f"ALTER TABLE {table} RENAME COLUMN {column} TO {self._new(table)}"]

    def _retype(self, table: str) -> list[str]:
        column, kind = self._chance.choice(self._columns[table]), self._chance.choice(TYPES)
        return [
            # Without a default the writers, which do not know of it, leave it empty.
            f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} DROP NOT NULL,"
            f" ALTER COLUMN {column} TYPE {kind} USING {_some(kind)}"
        ]

    def _not_null(self, table: str) -> list[str]:
        column = self._chance.choice(self._columns[table])
        drop = f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"
        # Of a mapped column too; the writers give it a value, or its default does.
        mapped = "body" if table == "notes" else "display_name"
        does = self._chance.choice(("DROP", "SET"))
        return [drop, f"ALTER TABLE {table} ALTER COLUMN {mapped} {does} NOT NULL"]

    def _default(self, table: str) -> list[str]:
        column = "body" if table == "notes" else "display_name"
        self._made += 1
        return [f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT 'é default {self._made}'"]

    def _mapped(self, table: str) -> list[str]:
        column, *kinds = self._chance.choice(MAPPED_TYPES[table])
        return [f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {self._chance.choice(kinds)}"]

    def _within(self, table: str) -> list[str]:
        """Two versions in one transaction, with rows of each."""
        gone = self._chance.choice(self._columns[table])
        self._columns[table].remove(gone)
        column = self._new(table)
        return [
            "BEGIN",
            _row(table, f"before {column}"),
            f"ALTER TABLE {table} DROP COLUMN {gone}, ADD COLUMN {column} text DEFAULT repeat('x', 3000)",
            _row(table, f"between {column}"),
            f"ALTER TABLE {table} ALTER COLUMN {column} TYPE jsonb USING '[1]', ALTER COLUMN {column} DROP DEFAULT",
            _row(table, f"after {column}"),
            "COMMIT",
        ]

    def _undone(self, table: str) -> list[str]:
        return ["BEGIN", f"ALTER TABLE {table} ADD COLUMN undone text", _row(table, "undone"), "ROLLBACK"]

    def _fill(self, table: str) -> list[str]:
        """Values of the added columns that stand beside the row, in TOAST, and which later updates leave alone."""
        column = self._new(table)
        large = "(SELECT string_agg(md5(n::text || random()::text), '') FROM generate_series(1, 300) n)"
        some = f"id IN (SELECT id FROM {table} ORDER BY id LIMIT 5)"
        return [
            f"ALTER TABLE {table} ADD COLUMN {column} text",
            f"UPDATE {table} SET {column} = {large} WHERE {some}",
        ]

    def _new(self, table: str) -> str:
        self._made += 1
        column = f"extra_{self._made}"
        self._columns[table].append(column)
        return column


def _some(kind: str) -> str:
    return {"bytea": "'\\x00ff'::bytea", "jsonb": "'{}'::jsonb", "text[]": "'{a,b}'::text[]"}.get(
        kind, f"'7'::{kind}"
    )


def _row(table: str, name: str) -> str:
    if table == "users":
        return f"INSERT INTO users (email, display_name) VALUES (gen_random_uuid()::text, '{name}')"
    return (
        f"INSERT INTO notes (workspace_id, title) SELECT id, '{name}' FROM workspaces ORDER BY id LIMIT 1;"
        " UPDATE notes SET title = title || '!' WHERE id = (SELECT id FROM notes ORDER BY id LIMIT 1)"
    )


def said(field: Field, words: str) -> int:
    return field.bridge.log.path.read_text(errors="replace").count(words)


@pytest.mark.timeout(1200 if LONG else 120)
async def test_schema_churn_under_load(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with open_field(tmp_path, {"fsync": "off"}) as field, field.database() as connection:
        churn = Churn(connection, chance)
        async with field.writing(SEED, writers=3):
            for number in range(200 if LONG else 24):
                await churn.step()
                if number % 10 == 9:
                    # In the midst of it, or while it starts again.
                    await FAULTS["bridge_killed"][0](field, chance)
                    await field.read_truth()
                    await field.throttle()
        await churn.tidy()
        verdict = await field.verdict()
        # None of it concerns the mapping.
        assert said(field, SPOKEN) == said(field, PAUSED) == 0, field.bridge.log.tail()
        assert len(churn.done) > (9 if LONG else 5), churn.done
    assert verdict.holds, verdict
    assert verdict.events > 100


@pytest.mark.timeout(600 if LONG else 120)
async def test_schema_broken_and_mended_under_load(tmp_path: Path) -> None:
    """By the policy ``pause``; now and then killed while it waits, and started before the table is mended."""
    breaks = {
        "ALTER TABLE users RENAME COLUMN display_name TO shown": "ALTER TABLE users RENAME COLUMN shown TO display_name",
        "ALTER TABLE users DROP COLUMN display_name": "ALTER TABLE users ADD COLUMN display_name text NOT NULL DEFAULT ''",
    }
    chance = random.Random(SEED)
    async with open_field(tmp_path, {"fsync": "off"}) as field, field.database() as connection:
        async with field.writing(SEED, writers=3):
            for number in range(20 if LONG else 2):
                spoken, term = said(field, PAUSED), field.bridge.term
                statement, mend = list(breaks.items())[number % 2]
                await field.more(chance.randint(1, 10))
                await connection.execute(statement.encode())

                async def waits(before: int = spoken) -> bool:
                    return said(field, PAUSED) > before

                await until(waits, "the bridge waits for a mend")
                await field.more(chance.randint(1, 20))
                if number % 2 == 0:
                    field.kill_bridge()
                    await refuses(field)
                await connection.execute(mend.encode())
                await (field.bridge.start() if number % 2 == 0 else field.bridge.streams(term))
                if number % 3 == 2:
                    await FAULTS["bridge_killed"][0](field, chance)
                await field.read_truth()
        verdict = await field.verdict()
        assert said(field, SPOKEN) > 0
    assert verdict.holds, verdict
    assert verdict.events > 50


async def refuses(field: Field) -> None:
    """A bridge that is started on a table that does not fit ends, and says so."""
    field.bridge.spawn()

    async def has_ended() -> bool:
        if field.bridge.exit_code in (3, 5):
            # The session of the one that was killed holds the lock for an instant.
            field.bridge.spawn()
        return field.bridge.exit_code is not None

    await until(has_ended, "the bridge ends")
    assert field.bridge.exit_code == EXIT_UNFIT, field.bridge.log.tail()
