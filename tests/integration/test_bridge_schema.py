"""Tables that are altered while the bridge runs: each row under its own version, nothing passed over."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1.rejected_pb2 import Rejected
from protos.events.v1.schema_change_pb2 import SchemaChange
from tests.faults.oracle import check_order
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader, Stored
from tests.integration.bridge_command import UNFIT, bridge, refused

SCHEMA = "zephyr._mark.0.schema"
MAPPING = """
[tables."public.users"]
kind = "user"
message = "zephyr.models.v1.User"
key = "id"
[tables."public.users".columns]
id = "id"
email = "email"
display_name = "display_name"
version = "version"
"""


def execute(dsn: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def changes(reader: Reader) -> list[Stored]:
    return [message for message in await reader.events() if message.headers["Zephyr-Verb"] != "read"]


async def controls(reader: Reader) -> list[SchemaChange]:
    return [
        SchemaChange.FromString(message.payload)
        for message in await reader.all()
        if message.subject == SCHEMA
    ]


def write(path: Path, text: str) -> None:
    path.write_text(text)


def user(name: str, more: str = "", value: str = "") -> str:
    return (
        f"INSERT INTO users (email, display_name{more and ', ' + more})"
        f" VALUES ('{name}@x', '{name}'{value and ', ' + value})"
    )


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.toml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def process(bridge_settings: BridgeSettings, mapping: Path, tmp_path: Path) -> BridgeProcess:
    return BridgeProcess(tmp_path, environment_for(bridge_settings) | {"ZEPHYR_MAPPING": str(mapping)})


async def test_what_does_not_concern_the_mapping_passes(
    process: BridgeProcess, stream_reader: Reader, migrated_dsn: str
) -> None:
    dsn = migrated_dsn
    try:
        await process.start()
        execute(dsn, user("a"), "ALTER TABLE users ADD COLUMN nick text", user("b", "nick", "'n'"))
        execute(dsn, "ALTER TABLE users RENAME COLUMN nick TO alias", user("c", "alias", "'n'"))
        execute(dsn, "ALTER TABLE users ALTER COLUMN alias TYPE bytea USING NULL", user("d"))
        execute(dsn, "ALTER TABLE users DROP COLUMN alias", user("e"))
        # Another type that the field can hold.
        execute(dsn, "ALTER TABLE users ALTER COLUMN version TYPE integer", user("f"))
        await stream_reader.caught_up(dsn)
        assert process.term == 1
    finally:
        process.kill()
    events = await changes(stream_reader)
    check_order(events)
    assert [message.event.user.display_name for message in events] == list("abcdef")
    assert [message.event.user.version for message in events] == [1] * 6
    assert await controls(stream_reader) == []


async def test_a_column_that_came_into_the_mapping_is_absent_from_older_rows(
    process: BridgeProcess, mapping: Path, stream_reader: Reader, migrated_dsn: str
) -> None:
    dsn = migrated_dsn
    try:
        execute(dsn, "ALTER TABLE users DROP COLUMN display_name")
        write(mapping, MAPPING.replace('display_name = "display_name"\n', ""))
        await process.start()
        process.kill()
        # Written under the old version, read under the new mapping.
        execute(dsn, "INSERT INTO users (email) VALUES ('old@x')")
        execute(dsn, "ALTER TABLE users ADD COLUMN display_name text NOT NULL DEFAULT ''", user("new"))
        write(mapping, MAPPING)
        await process.start()
        await stream_reader.caught_up(dsn)
    finally:
        process.kill()
    found = [(each.event.user.email, each.event.user.display_name) for each in await changes(stream_reader)]
    assert found == [("old@x", ""), ("new@x", "new")]


async def test_a_dropped_column_pauses_until_the_mapping_fits(
    process: BridgeProcess, mapping: Path, stream_reader: Reader, migrated_dsn: str
) -> None:
    dsn = migrated_dsn
    try:
        await process.start()
        execute(dsn, user("before"), "ALTER TABLE users DROP COLUMN display_name")
        execute(dsn, "INSERT INTO users (email) VALUES ('after@x')")

        async def is_said() -> bool:
            return len(await controls(stream_reader)) == 1

        await eventually(is_said, timeout=30)
        await eventually(lambda: "paused until" in process.log, timeout=30)
        assert [message.event.user.email for message in await changes(stream_reader)] == ["before@x"]
        # A file that cannot be taken changes nothing.
        write(mapping, "[tables")
        await eventually(lambda: "going on with the former one" in process.log, timeout=30)
        assert process.process.poll() is None
        write(mapping, MAPPING.replace('display_name = "display_name"\n', ""))
        await stream_reader.caught_up(dsn, timeout=30)
    finally:
        process.kill()
    assert [message.event.user.email for message in await changes(stream_reader)] == ["before@x", "after@x"]
    (said,) = await controls(stream_reader)
    assert (said.table, said.policy) == ("public.users", SchemaChange.POLICY_PAUSE)
    assert any("display_name: rows in the WAL lack the column" in line for line in said.mismatches)
    assert "email" in {column.name for column in said.columns}
    assert "Traceback" not in process.log


async def test_a_column_that_had_another_name_for_a_while(
    process: BridgeProcess,
    bridge_settings: BridgeSettings,
    mapping: Path,
    stream_reader: Reader,
    migrated_dsn: str,
) -> None:
    dsn = migrated_dsn
    try:
        await process.start()
        execute(dsn, user("one"), "ALTER TABLE users RENAME COLUMN display_name TO shown")
        execute(dsn, "INSERT INTO users (email, shown) VALUES ('two@x', 'two')")
        await eventually(lambda: "paused until" in process.log, timeout=30)
        execute(dsn, "ALTER TABLE users RENAME COLUMN shown TO display_name", user("three"))
        await stream_reader.caught_up(dsn, timeout=30)
        found = [each.event.user.display_name for each in await changes(stream_reader)]
        # The row was written without the column. That is said, with its mend.
        assert found == ["one", "", "three"]
        assert "lack a mapped column" in process.log
        assert "zephyr bridge backfill public.users" in process.log
        ended = await bridge(
            "backfill", "public.users", settings=bridge_settings, ZEPHYR_MAPPING=str(mapping)
        )
        assert ended.returncode == 0, ended.stderr
        last = {each.subject: each.event.user for each in await stream_reader.events()}
        assert sorted(each.display_name for each in last.values()) == ["one", "three", "two"]
    finally:
        process.kill()


async def test_by_policy_rows_go_to_the_dead_letters(
    bridge_settings: BridgeSettings, mapping: Path, stream_reader: Reader, migrated_dsn: str, tmp_path: Path
) -> None:
    dsn = migrated_dsn
    process = BridgeProcess(
        tmp_path,
        environment_for(bridge_settings)
        | {"ZEPHYR_MAPPING": str(mapping), "ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE": "dead-letter"},
    )
    try:
        await process.start()
        execute(dsn, user("before"), "ALTER TABLE users RENAME COLUMN display_name TO shown")
        execute(dsn, "INSERT INTO users (email, shown) VALUES ('one@x', 'one')")
        execute(dsn, "UPDATE users SET shown = 'two' WHERE email = 'one@x'")
        execute(dsn, "ALTER TABLE users RENAME COLUMN shown TO display_name", user("good"))
        await stream_reader.caught_up(dsn)
        assert process.term == 1
    finally:
        process.kill()
    events = await changes(stream_reader)
    check_order(events)
    assert [each.headers["Zephyr-Verb"] for each in events] == ["created", "rejected", "rejected", "created"]
    assert [each.event.rejected.reason for each in events[1:3]] == [Rejected.REASON_SCHEMA] * 2
    # The key was there: whose state is not known is said.
    assert events[1].event.subject == events[2].event.subject != "_"
    assert [said.policy for said in await controls(stream_reader)] == [SchemaChange.POLICY_DEAD_LETTER]


async def test_by_policy_a_start_with_an_altered_table_says_what_to_do(
    bridge_settings: BridgeSettings, mapping: Path, migrated_dsn: str
) -> None:
    environment = {"ZEPHYR_MAPPING": str(mapping), "ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE": "dead-letter"}
    execute(migrated_dsn, "ALTER TABLE users RENAME COLUMN display_name TO shown")
    said = await refused(
        UNFIT,
        "public.users.display_name: there is no such column; add it, or take it out of the mapping",
        "ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE=dead-letter does not help at a start",
        settings=bridge_settings,
        **environment,
    )
    assert said.endswith("mend the above first")
    said = await refused(
        UNFIT,
        "there is no such column",
        settings=bridge_settings,
        **environment | {"ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE": "pause"},
    )
    assert "at a start" not in said


async def test_a_table_that_is_added_to_the_mapping(
    process: BridgeProcess, mapping: Path, stream_reader: Reader, migrated_dsn: str
) -> None:
    dsn = migrated_dsn
    workspace = "INSERT INTO workspaces (slug, name) VALUES ('{0}', '{0}')"
    try:
        await process.start()
        execute(dsn, user("a"), workspace.format("unmapped"))
        await stream_reader.caught_up(dsn)
        process.kill()
        execute(dsn, workspace.format("while-away"))
        write(
            mapping,
            MAPPING
            + """
[tables."public.workspaces"]
kind = "workspace"
message = "zephyr.models.v1.Workspace"
key = "id"
workspace = "id"
[tables."public.workspaces".columns]
id = "id"
slug = "slug"
""",
        )
        await process.start()
        execute(dsn, workspace.format("mapped"), user("b"))
        await stream_reader.caught_up(dsn)
    finally:
        process.kill()
    found = [each.event.user.email or each.event.workspace.slug for each in await changes(stream_reader)]
    assert found == ["a@x", "mapped", "b@x"]
