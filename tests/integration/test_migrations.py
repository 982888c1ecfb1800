"""The schema's revisions on a real server."""

from __future__ import annotations

import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer import Typer
from typer.testing import CliRunner

from zephyr.commands.migrate import migrate as migrate_command
from zephyr.console import CommandError
from zephyr.migrations import runner
from zephyr.migrations.runner import LOCK_KEY, MigrationError, migrate

ALL = ["0001", "0002"]
TABLES = ["memberships", "notes", "users", "workspaces"]


def url(dsn: str) -> str:
    """A DSN in its other form."""
    parts = conninfo_to_dict(dsn)
    secret = f":{parts['password']}" if parts.get("password") else ""
    user = parts.get("user") or "postgres"
    host = parts.get("host") or parts.get("hostaddr")
    return f"postgresql://{user}{secret}@{host}:{parts.get('port') or 5432}/{parts['dbname']}"


def rows(dsn: str, statement: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_the_tables_are_made_once(postgres_dsn: str) -> None:
    steps: list[str] = []
    assert migrate(postgres_dsn, steps.append) == ALL
    assert steps[0] == "0001: Workspaces, users, memberships and notes."
    found = rows(
        postgres_dsn,
        "SELECT relname, relreplident::text FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        f" AND relname <> '{runner.VERSION_TABLE}' ORDER BY relname",
    )
    assert found == [(name, "f") for name in TABLES]
    assert migrate(postgres_dsn, steps.append) == []
    assert len(steps) == len(ALL)


def test_both_forms_of_a_dsn(postgres_dsn: str) -> None:
    assert migrate(url(postgres_dsn)) == ALL
    assert migrate(postgres_dsn) == []


def test_a_write_is_counted_and_dated(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO users (email) VALUES ('a@b.c')")
        first = connection.execute("SELECT version, created_at = updated_at FROM users").fetchone()
        connection.execute("UPDATE users SET version = 40, display_name = 'A'")
        second = connection.execute("SELECT version, updated_at > created_at FROM users").fetchone()
        assert (first, second) == ((1, True), (2, True))
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("UPDATE users SET metadata = '[]'")


def test_what_goes_with_a_workspace_and_with_a_user(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "WITH w AS (INSERT INTO workspaces (slug, name) VALUES ('w', 'W') RETURNING id),"
            " u AS (INSERT INTO users (email) VALUES ('a@b.c') RETURNING id),"
            " m AS (INSERT INTO memberships (workspace_id, user_id) SELECT w.id, u.id FROM w, u)"
            " INSERT INTO notes (workspace_id, author_id, title) SELECT w.id, u.id, 't' FROM w, u"
        )
        connection.execute("DELETE FROM users")
        count = (
            "SELECT (SELECT count(*) FROM memberships), (SELECT count(*) FROM notes WHERE author_id IS NULL)"
        )
        assert connection.execute(count.encode()).fetchone() == (0, 1)
        connection.execute("DELETE FROM workspaces")
        assert connection.execute(count.encode()).fetchone() == (0, 0)


def test_several_at_once_do_not_collide(postgres_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [postgres_dsn] * 4))
    assert sorted(applied) == [[], [], [], ALL]


def test_a_lock_that_is_never_given_is_an_error(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOCK_TIMEOUT_S", 1)
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(MigrationError, match="another migration") as raised:
            migrate(postgres_dsn)
    assert raised.value.exit_code == 4
    assert migrate(postgres_dsn) == ALL


def test_tables_that_are_not_ours_are_left_alone(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE TABLE users (name text)")
    with pytest.raises(MigrationError, match='"users" already exists') as raised:
        migrate(postgres_dsn)
    assert raised.value.exit_code == 4
    assert rows(postgres_dsn, "SELECT relname FROM pg_class WHERE relname IN ('workspaces', 'users')") == [
        ("users",)
    ]


def test_a_revision_of_the_future(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"UPDATE {runner.VERSION_TABLE} SET version_num = '9999'".encode())
    with pytest.raises(MigrationError, match="9999") as raised:
        migrate(postgres_dsn)
    assert raised.value.exit_code == 4


def test_a_user_without_rights(postgres_dsn: str) -> None:
    role = f"weak_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal("weak"))
        )
        try:
            with pytest.raises(MigrationError, match="may not change the schema") as raised:
                migrate(make_conninfo(postgres_dsn, user=role, password="weak"))
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert raised.value.exit_code == 4


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(MigrationError, match=f"127.0.0.1:{port} cannot be reached") as raised:
            migrate(f"postgresql://someone:secret@127.0.0.1:{port}/zephyr")
    assert raised.value.exit_code == 3
    assert "secret" not in raised.value.message
    assert "\n" not in raised.value.message


def test_a_database_or_role_that_is_not_there(postgres_dsn: str) -> None:
    for change, mend in (
        ({"dbname": "nowhere_at_all"}, "createdb"),
        ({"user": "nobody_at_all"}, "ZEPHYR_POSTGRES_DSN"),
    ):
        with pytest.raises(MigrationError, match="refused the connection") as raised:
            migrate(make_conninfo(postgres_dsn, **change))
        assert raised.value.exit_code == 4
        assert mend in raised.value.mend


@pytest.mark.parametrize(
    ("said", "exit_code", "mend"),
    [
        ('FATAL:  password authentication failed for user "u"', 4, "user and password"),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u", database "d"', 4, "pg_hba.conf"),
        ("fe_sendauth: no password supplied", 4, "user and password"),
        ("FATAL:  the database system is starting up", 3, "start it"),
        ("FATAL:  sorry, too many clients already", 3, "start it"),
    ],
)
def test_what_a_refusal_means(said: str, exit_code: int, mend: str) -> None:
    error = runner.connection_error(
        psycopg.OperationalError(f'connection failed: connection to server at "h", port 1 failed: {said}'), {}
    )
    assert error.exit_code == exit_code
    assert mend in error.mend


def test_a_dsn_that_cannot_be_read() -> None:
    with pytest.raises(MigrationError, match="cannot be read") as raised:
        migrate("postgresql://u:s%ecret@h/d")
    assert raised.value.exit_code == 2
    assert "ecret" not in raised.value.message


def test_the_command(postgres_dsn: str) -> None:
    app = Typer()
    app.command()(migrate_command)
    first = CliRunner().invoke(app, ["--postgres-dsn", postgres_dsn])
    assert (first.exit_code, "0001" in first.output) == (0, True)
    again = CliRunner().invoke(app, [], env={"ZEPHYR_POSTGRES_DSN": postgres_dsn})
    assert (again.exit_code, "already at the newest revision" in again.output) == (0, True)
    nothing = CliRunner().invoke(app, [], env={"ZEPHYR_POSTGRES_DSN": ""})
    assert isinstance(nothing.exception, CommandError)
    assert nothing.exception.exit_code == 2
