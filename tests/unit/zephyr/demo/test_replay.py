"""The replay on a real Postgres, with connections that end at the worst moments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.fixtures.eventually import eventually
from zephyr.console import CommandError
from zephyr.demo import replay as replay_module
from zephyr.demo import sql
from zephyr.demo.expected import Expected
from zephyr.demo.history import Action, CommitChanges, FileChange, ShippedHistory
from zephyr.demo.plan import Plan
from zephyr.demo.replay import Replay
from zephyr.stack.postgres import PostgresServer


async def freely(_before: int) -> None:
    """No back-pressure."""


class Steady:
    """One note that each commit changes."""

    name = "steady"
    notice = ""

    def __init__(self, total: int) -> None:
        self.total = total
        self.skipped: Counter[str] = Counter()

    async def commits(self) -> AsyncGenerator[CommitChanges, None]:
        for number in range(self.total):
            action = Action.MODIFY if number else Action.ADD
            yield CommitChanges("", "Ada", "a@x", "", [FileChange(action, 1, "a", str(number))])


def rows(dsn: str, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement, parameters).fetchall()


async def test_the_shipped_history_is_what_the_tables_hold(migrated_dsn: str) -> None:
    for run in range(2):
        history = ShippedHistory(None, "")
        expected = Expected()
        workspace = uuid4()
        replay = Replay(migrated_dsn, history, Plan(workspace, f"s-{run}", "s"), expected, freely)
        await replay.run()
        assert replay.progress.commits == history.total
        found = rows(migrated_dsn, "SELECT id::text, version FROM notes WHERE workspace_id = %s", workspace)
        verbs = ("created", "updated")
        assert len(found) > 15
        for note, version in found:
            assert isinstance(version, int)
            assert expected.find("note", str(note), verbs[version > 1], version) is not None
        assert rows(migrated_dsn, "SELECT count(*) FROM users") == [(5,)]
        assert rows(migrated_dsn, "SELECT count(*) FROM memberships WHERE workspace_id = %s", workspace) == [
            (5,)
        ]
        for user, version in rows(migrated_dsn, "SELECT id::text, version FROM users WHERE version > 1"):
            assert isinstance(version, int)
            assert expected.find("user", str(user), "updated", version) is not None
    titles = rows(migrated_dsn, "SELECT title, body FROM notes WHERE title = 'kitchen/豌豆汤.md'")
    assert len(titles) == 2


async def test_connections_that_are_ended_in_mid_replay(migrated_dsn: str) -> None:
    history = Steady(400)
    expected = Expected()
    replay = Replay(migrated_dsn, history, Plan(uuid4(), "steady", "steady"), expected, freely)
    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'zephyr demo' AND datname = current_database()"
    )

    async def disturb() -> None:
        async with await psycopg.AsyncConnection.connect(migrated_dsn, autocommit=True) as connection:
            while True:
                before = replay.progress.commits
                await connection.execute(terminate)
                await eventually(lambda before=before: replay.progress.commits > before + 10)  # type: ignore[misc]

    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb())
        await replay.run()
        disturbing.cancel()
    assert replay.progress.retries > 3
    # A commit that was sent twice, or not at all, would show in the version.
    assert rows(migrated_dsn, "SELECT version, body FROM notes") == [(400, "399")]
    assert len(expected) == 400 + 3


async def test_postgres_killed_in_mid_replay(spare_postgres: PostgresServer) -> None:
    history = Steady(300)
    expected = Expected()
    replay = Replay(spare_postgres.dsn, history, Plan(uuid4(), "steady", "steady"), expected, freely)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(replay.run())
        for reached in (50, 150):
            await eventually(lambda reached=reached: replay.progress.commits >= reached)  # type: ignore[misc]
            await spare_postgres.kill()
            await spare_postgres.start()
        await running
    assert rows(spare_postgres.dsn, "SELECT version, body FROM notes") == [(300, "299")]


@pytest.mark.parametrize("did_happen", [True, False])
async def test_a_lost_answer_to_commit_is_resolved(
    migrated_dsn: str, monkeypatch: pytest.MonkeyPatch, did_happen: bool
) -> None:
    """The connection ends right before COMMIT is sent, or right after it was carried out."""
    lost = 0
    execute = psycopg.AsyncConnection.execute

    async def cut(connection: psycopg.AsyncConnection, query: str, *rest: Any, **more: Any) -> object:
        nonlocal lost
        if query == "COMMIT" and lost < 3:
            lost += 1
            if did_happen:
                await execute(connection, query)
            with suppress(psycopg.OperationalError):
                await execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        return await execute(connection, query, *rest, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", cut)
    expected = Expected()
    replay = Replay(migrated_dsn, Steady(4), Plan(uuid4(), "steady", "steady"), expected, freely)
    await replay.run()
    monkeypatch.undo()
    assert lost == 3
    assert replay.progress.retries == 3
    assert rows(migrated_dsn, "SELECT version, body FROM notes") == [(4, "3")]
    assert len(expected) == 4 + 3


async def test_a_transaction_id_from_before_a_crash_is_not_asked_after(migrated_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(migrated_dsn, autocommit=True) as connection:
        assert await replay_module._status(connection, "4000000000") is None


async def test_a_statement_that_postgres_refuses_is_one_error(migrated_dsn: str) -> None:
    taken = UUID(int=5)
    with psycopg.connect(migrated_dsn) as connection:
        connection.execute(sql.INSERT_WORKSPACE, (taken, "s", "s"))
    replay = Replay(migrated_dsn, Steady(1), Plan(taken, "other", "s"), Expected(), freely)
    with pytest.raises(CommandError, match="Postgres refuses what the demo writes: duplicate key"):
        await replay.run()


async def test_a_database_that_does_not_exist_is_not_waited_for(migrated_dsn: str) -> None:
    replay = Replay(migrated_dsn + "_not", Steady(1), Plan(uuid4(), "s", "s"), Expected(), freely)
    with pytest.raises(CommandError, match="does not exist"):
        await replay.run()
