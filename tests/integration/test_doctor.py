"""``zephyr doctor`` on real servers: what it finds, what it ends with, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import psycopg
import pytest

from bridge.doctor.finding import Severity
from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.databases import database
from tests.integration.bridge_command import execute
from tests.integration.doctor_command import doctor, findings_of, state_of
from zephyr.migrations.runner import migrate
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer

HOLD_BACK = {"ZEPHYR_BRIDGE_HOLD_BACK_S": "120"}


async def test_with_a_bridge_that_runs_there_are_notes_alone(
    bridge_settings: BridgeSettings, tmp_path: Path
) -> None:
    async with running(bridge_settings):
        said = await doctor(bridge_settings, tmp_path, **HOLD_BACK)
    assert said.code == 0, said.output
    assert {each["severity"] for each in said.findings} == {"ok", "note"}
    assert said.severity("epoch") == said.severity("postgres.slot") == "ok"
    assert said.severity("clock.nats") == said.severity("clock.postgres") == "ok"
    # Nothing but what is not fine, each with its name, and the counts.
    assert "\nok " not in said.output
    assert "(nats.limits)" in said.output
    assert said.output.splitlines()[-1].endswith(" ok")


async def test_it_shows_what_is_fine_when_asked(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    said = await doctor(bridge_settings, tmp_path, "--verbose", **HOLD_BACK)
    for finding in said.findings:
        assert f"({finding['check']})" in said.output
        assert finding["found"] in said.output
        assert finding["mend"] in said.output


async def test_it_changes_nothing(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    async with running(bridge_settings):
        pass
    before = await state_of(bridge_settings)
    assert before["slot"]
    assert before["publication"]
    assert before["streams"]
    said = await doctor(bridge_settings, tmp_path, **HOLD_BACK)
    # It did try to publish.
    assert said.severity("nats.publishers") == "note"
    assert await state_of(bridge_settings) == before


async def test_it_makes_nothing(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    before = await state_of(bridge_settings)
    assert before == {"slot": [], "publication": [], "published": [], "streams": {}}
    said = await doctor(bridge_settings, tmp_path, **HOLD_BACK)
    assert said.code == 0, said.output
    assert await state_of(bridge_settings) == before


async def test_nats_is_away(bridge_settings: BridgeSettings, nats_server: NatsServer, tmp_path: Path) -> None:
    await nats_server.stop()
    said = await doctor(bridge_settings, tmp_path)
    assert said.code == 3
    assert said.severity("nats") == "away"
    assert said.severity("postgres.mapping") == "ok"


async def test_postgres_is_away(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    dsn = "postgresql://zephyr@127.0.0.1:9/zephyr"
    said = await doctor(bridge_settings, tmp_path, ZEPHYR_POSTGRES_DSN=dsn, **HOLD_BACK)
    assert said.code == 3
    assert said.severity("postgres") == "away"
    assert said.severity("nats.version") == "ok"


async def test_every_replica_identity_is_named(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    tables = ("notes", "users")
    for table in tables:
        execute(bridge_settings.postgres_dsn, f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT")
    said = await doctor(bridge_settings, tmp_path, **HOLD_BACK)
    assert said.code == 4
    for table in tables:
        assert f"→ run: ALTER TABLE public.{table} REPLICA IDENTITY FULL" in said.output


async def test_a_publication_that_lacks_a_table(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    execute(bridge_settings.postgres_dsn, f"ALTER PUBLICATION {bridge_settings.publication} DROP TABLE notes")
    found = await findings_of(bridge_settings)
    assert found["postgres.publication"].severity is Severity.UNSAFE
    assert "lacks public.notes" in found["postgres.publication"].found
    assert found["postgres.mapping"].severity is Severity.OK


async def test_its_mends_mend(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    name = bridge_settings.publication
    execute(
        bridge_settings.postgres_dsn,
        "ALTER TABLE notes REPLICA IDENTITY NOTHING",
        f"ALTER PUBLICATION {name} SET (publish = 'insert', publish_via_partition_root = false)",
    )
    found = await findings_of(bridge_settings)
    for check in ("postgres.mapping", "postgres.publication"):
        assert found[check].severity is Severity.BROKEN
        execute(bridge_settings.postgres_dsn, found[check].mend.removeprefix("run: "))
    found = await findings_of(bridge_settings)
    assert found["postgres.mapping"].severity is Severity.OK
    assert found["postgres.publication"].severity is Severity.OK


async def test_a_publication_that_is_younger_than_the_slot(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    name = bridge_settings.publication
    assert (await findings_of(bridge_settings))["postgres.publication_order"].severity is Severity.OK
    execute(bridge_settings.postgres_dsn, f"DROP PUBLICATION {name}")
    found = await findings_of(bridge_settings)
    assert found["postgres.publication"].severity is Severity.BROKEN
    execute(bridge_settings.postgres_dsn, f"CREATE PUBLICATION {name} FOR ALL TABLES")
    found = await findings_of(bridge_settings)
    assert found["postgres.publication_order"].severity is Severity.NOTE
    assert "partitions" in found["postgres.publication"].found


async def test_a_role_that_may_not(bridge_settings: BridgeSettings, slot_name: str) -> None:
    role = f"role_{slot_name}"
    execute(bridge_settings.postgres_dsn, f"CREATE ROLE {role} LOGIN")
    try:
        dsn = bridge_settings.postgres_dsn.replace("//zephyr@", f"//{role}@")
        found = await findings_of(bridge_settings.model_copy(update={"postgres_dsn": dsn}))
    finally:
        execute(bridge_settings.postgres_dsn, f"DROP ROLE {role}")
    assert found["postgres.replication"].severity is Severity.BROKEN
    assert f'ALTER ROLE "{role}" REPLICATION' in found["postgres.replication"].mend
    assert found["postgres.publication"].severity is Severity.BROKEN
    assert "does not own public.memberships, public.notes" in found["postgres.publication"].found
    assert "those of others it cannot see" in found["postgres.transactions"].found


async def test_the_publication_to_make_has_generated_columns(
    bridge_settings: BridgeSettings, slot_name: str
) -> None:
    role = f"role_{slot_name}"
    dsn = bridge_settings.postgres_dsn
    execute(
        dsn,
        f"CREATE ROLE {role} LOGIN REPLICATION",
        "ALTER TABLE notes ADD COLUMN doubled bigint GENERATED ALWAYS AS (version * 2) STORED",
    )
    try:
        as_role = dsn.replace("//zephyr@", f"//{role}@")
        found = await findings_of(bridge_settings.model_copy(update={"postgres_dsn": as_role}))
    finally:
        execute(dsn, f"DROP ROLE {role}")
    mend = found["postgres.publication"].mend
    assert "publish_generated_columns = stored" in mend
    # Without that Postgres refuses each update and delete of the table.
    execute(dsn, mend.removeprefix("as an owner of the tables run: "))
    assert (await findings_of(bridge_settings))["postgres.publication"].severity is Severity.OK
    name = bridge_settings.publication
    execute(dsn, f"ALTER PUBLICATION {name} SET (publish_generated_columns = none)")
    found = await findings_of(bridge_settings)
    assert found["postgres.publication"].severity is Severity.BROKEN
    assert "leaves out the generated columns of public.notes" in found["postgres.publication"].found
    execute(dsn, found["postgres.publication"].mend.removeprefix("run: "))
    note = "WITH made AS (INSERT INTO workspaces (slug, name) VALUES ('w', 'w') RETURNING id)"
    execute(dsn, f"{note} INSERT INTO notes (workspace_id, title) SELECT id, 't' FROM made")
    execute(dsn, "UPDATE notes SET title = 'other'", "DELETE FROM notes")


async def test_a_transaction_that_is_open_for_long(
    bridge_settings: BridgeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.doctor.slot_checks.LONG_TRANSACTION_S", 0)
    with psycopg.connect(bridge_settings.postgres_dsn) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        found = await findings_of(bridge_settings)
        pid = connection.info.backend_pid
    assert found["postgres.transactions"].severity is Severity.NOTE
    assert f"pg_terminate_backend({pid})" in found["postgres.transactions"].mend


async def test_a_stream_that_lost_its_end(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    async with running(bridge_settings):
        pass
    with psycopg.connect(bridge_settings.postgres_dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_logical_emit_message(true, 'test', 'moves the WAL')")
        connection.execute(
            "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (bridge_settings.slot,)
        )
    said = await doctor(bridge_settings, tmp_path, **HOLD_BACK)
    assert said.code == 4
    assert "lost its end" in said.output


async def test_a_slot_without_its_stream(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    client = await nats.connect(bridge_settings.nats_url, allow_reconnect=False)
    await client.request(f"$JS.API.STREAM.DELETE.{bridge_settings.stream}")
    found = await findings_of(bridge_settings)
    assert found["epoch"].severity is Severity.BROKEN
    config = {"name": "OTHER", "subjects": ["zephyr.>"], "storage": "memory"}
    await client.request("$JS.API.STREAM.CREATE.OTHER", json.dumps(config).encode())
    await client.close()
    found = await findings_of(bridge_settings)
    assert "'OTHER' has its subjects" in found["nats.stream"].found
    found = await findings_of(bridge_settings.model_copy(update={"stream": "OTHER"}))
    assert "was not made by Zephyr" in found["nats.stream"].found


async def test_a_slot_that_holds_more_than_it_may(
    spare_postgres: PostgresServer, nats_url: str, slot_name: str
) -> None:
    with database(spare_postgres) as dsn:
        migrate(dsn)
        settings = settings_for(dsn, nats_url, slot_name)
        async with running(settings):
            pass
        # What a setting says is what the server does, in its own units: 2 MB, and two segments of WAL.
        execute(dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'", "SELECT pg_reload_conf()")
        execute(dsn, *["SELECT pg_logical_emit_message(true, 'test', 'text')", "SELECT pg_switch_wal()"] * 3)
        found = await findings_of(settings)
        assert found["postgres.max_slot_wal_keep_size"].severity is Severity.UNSAFE
        assert "max_slot_wal_keep_size is 2 MiB" in found["postgres.max_slot_wal_keep_size"].found
        assert found["postgres.slot"].severity is Severity.UNSAFE
        execute(dsn, "CHECKPOINT")
        found = await findings_of(settings)
        assert found["postgres.slot"].severity is Severity.BROKEN
        assert "invalidated" in found["postgres.slot"].found


async def test_settings_of_the_server(spare_postgres: PostgresServer, nats_url: str, slot_name: str) -> None:
    with database(spare_postgres) as dsn:
        execute(
            dsn,
            "ALTER SYSTEM SET wal_sender_timeout = 0",
            "ALTER SYSTEM SET idle_replication_slot_timeout = '1h'",
            "SELECT pg_reload_conf()",
            "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0",
        )
        ascii_dsn = dsn.rpartition("/")[0] + "/ascii"
        found = await findings_of(settings_for(ascii_dsn, nats_url, slot_name))
    assert found["postgres.wal_sender_timeout"].severity is Severity.NOTE
    assert "is 1 h" in found["postgres.idle_replication_slot_timeout"].found
    assert found["postgres.idle_replication_slot_timeout"].severity is Severity.UNSAFE
    assert found["postgres.encoding"].severity is Severity.UNSAFE


@pytest.mark.parametrize(("words", "code"), [(("--json", "/no/folder/x.json"), 2), (("--help",), 0)])
async def test_usage(words: tuple[str, ...], code: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "zephyr", "doctor", *words, stdout=-1, stderr=-1
    )
    out, error = await process.communicate()
    assert process.returncode == code, error
    assert (b"Exit codes: 0 nothing" in out) == (code == 0)
