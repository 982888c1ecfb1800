"""The copy of the tables is killed and cut off at any moment: it resumes, and the stream still has no seam."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from bridge.errors import EventRejected
from bridge.settings import BridgeSettings
from bridge.slot import ReplicationConnection
from tests.fixtures.bridge import RunningBridge, running, settings_for
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader, open_reader
from tests.integration.bridge_command import execute
from tests.integration.snapshot_kit import W1, check, fill, fill_notes, marks
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer


@pytest.mark.timeout(300)
async def test_killed_while_it_copies(
    bridge_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path
) -> None:
    dsn = bridge_settings.postgres_dsn
    execute(dsn, f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')")
    execute(dsn, "INSERT INTO workspaces (slug, name) VALUES ('two', 'Two')")
    fill_notes(dsn, 18_000)
    # Not faster than the kill comes.
    slow = {"ZEPHYR_SNAPSHOT_MAX_ROWS_PER_S": "6000"}
    bridge_process = BridgeProcess(tmp_path, environment_for(bridge_settings) | slow)
    for kill_at in (1, 7_000, 7_500):
        bridge_process.spawn()
        before = (await stream_reader.info()).get("state", {}).get("last_seq", 0)

        async def has_stored(target: int = before + kill_at) -> bool:
            bridge_process.is_ready()
            return bool((await stream_reader.info()).get("state", {}).get("last_seq", 0) >= target)

        try:
            await eventually(has_stored, timeout=30)
        finally:
            bridge_process.kill()
        assert not any(mark.complete for mark in await marks(stream_reader))
        with psycopg.connect(dsn) as connection:
            some = "SELECT id FROM notes TABLESAMPLE BERNOULLI (1)"
            connection.execute(f"DELETE FROM notes WHERE id IN ({some})".encode())
            connection.execute(f"UPDATE notes SET title = 'changed' WHERE id IN ({some})".encode())
            connection.execute(
                "UPDATE notes SET workspace_id = (SELECT id FROM workspaces WHERE slug = 'two')"
                f" WHERE id IN ({some})".encode()
            )
    bridge = RunningBridge(bridge_settings)
    try:
        await bridge.ready(timeout=60)
        events = await check(stream_reader, dsn)
    finally:
        await bridge.stop()
    verbs = [message.headers["Zephyr-Verb"] for message in events]
    assert {"read", "deleted", "left"} <= set(verbs)
    found = await marks(stream_reader)
    assert found[-1].complete
    assert found[-1].attempt >= 3
    # What an earlier attempt had stored was not read again.
    assert found[-1].rows < 17_000


async def test_servers_go_away_while_it_copies(
    spare_postgres: PostgresServer, nats_server: NatsServer, slot_name: str
) -> None:
    dsn = spare_postgres.dsn
    execute(dsn, f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')")
    fill_notes(dsn, 10_000)
    settings = settings_for(dsn, nats_server.url, slot_name, snapshot_max_rows_per_s=4000)
    bridge = RunningBridge(settings)
    try:
        for number, rows in enumerate((2_000, 5_000)):
            async with open_reader(nats_server.url) as reader:

                async def has_stored(target: int = rows) -> bool:
                    assert not bridge.task.done(), bridge.task.exception()
                    found = await reader.info()
                    return bool(found.get("state", {}).get("messages", 0) >= target)

                await eventually(has_stored, timeout=30)
            if number:
                assert spare_postgres.pid is not None
                os.kill(spare_postgres.pid, signal.SIGQUIT)
                await spare_postgres.wait()
                await spare_postgres.start()
            else:
                await nats_server.kill()
                await nats_server.start()
            execute(dsn, "DELETE FROM notes WHERE id IN (SELECT id FROM notes TABLESAMPLE BERNOULLI (1))")
        await bridge.ready(timeout=40)
        async with open_reader(nats_server.url) as reader:
            await check(reader, dsn)
            assert (await marks(reader))[-1].attempt == 3
    finally:
        await bridge.stop()


async def test_killed_between_the_copy_and_the_slot(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    fill(dsn, 100)

    # As a kill at that moment leaves it: a whole copy and no slot.
    async def dies(*_: object) -> None:
        raise EventRejected("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplicationConnection, "copy_slot", dies)
        with pytest.raises(EventRejected):
            async with running(bridge_settings):
                pass
    found = (await marks(stream_reader))[-1]
    assert found.complete
    execute(
        dsn,
        "DELETE FROM notes WHERE title = 'note 7'",
        "UPDATE notes SET body = 'new' WHERE title = 'note 8'",
        "INSERT INTO users (email) VALUES ('later')",
    )
    async with running(bridge_settings):
        events = await check(stream_reader, dsn)
    last = [
        m for m in events if m.sequence > 100 and f".{found.consistent_lsn:X}." not in m.headers["Zephyr-Id"]
    ]
    assert sorted(message.headers["Zephyr-Verb"] for message in last) == ["deleted", "read", "read"]
