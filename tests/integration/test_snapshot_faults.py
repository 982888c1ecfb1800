"""Snapshots that are broken off, held back by their client, or begun anew in place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from bridge.settings import BridgeSettings
from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from realtime.errors import Unavailable
from realtime.status import from_error
from tests.fixtures.bridge import RunningBridge, running, settings_for
from tests.fixtures.churn import churning
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import earliest, raw_stream, snapshot
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.snapshot_fold import fold_items, fold_stored
from tests.fixtures.snapshot_kit import FILL, SnapshotKit, opened_server, whole
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_states import read_all
from tests.integration.bridge_command import bridge, execute
from zephyr.stack.postgres import PostgresServer

MIB = 1024 * 1024


async def test_the_server_is_killed_in_mid_snapshot_and_another_one_is_whole(
    bridge_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path
) -> None:
    server = ServerProcess(
        tmp_path, bridge_settings.nats_url, ZEPHYR_POSTGRES_DSN=bridge_settings.postgres_dsn
    )
    try:
        async with running(bridge_settings):
            execute(bridge_settings.postgres_dsn, *FILL)
            await stream_reader.caught_up(bridge_settings.postgres_dsn)
            await server.start()
            async with churning(bridge_settings.postgres_dsn, writers=1):
                async with raw_stream(server.address) as stream:
                    await stream.open("s", start=snapshot(), credit=pb.Credit(messages=300))
                    await stream.until(lambda: len(stream["s"].items) == 300)
                    assert not stream["s"].cursor, "there is nothing to go on from: the client begins anew"
                    await server.kill()
                await server.start()
                async with raw_stream(server.address) as stream:
                    await stream.open("s", start=snapshot())
                    await whole(stream, "s")
                    account = stream["s"]
            await stream_reader.caught_up(bridge_settings.postgres_dsn)
            through = Cursor.decode(account.end.cursor).sequence
            assert fold_items(account.items) == fold_stored(await read_all(stream_reader), through)
    finally:
        await server.kill()


async def test_a_client_that_does_not_read_holds_back_its_own_scan_and_little_memory(
    migrated_dsn: str, nats_url: str, slot_name: str, tmp_path: Path
) -> None:
    count, size = 600, 100_000  # 60 MB, which eight subscriptions ask for
    execute(
        migrated_dsn,
        "INSERT INTO workspaces (slug, name) VALUES ('w', 'W')",
        f"INSERT INTO notes (workspace_id, title, body) SELECT id, 't', repeat('x', {size})"
        f" FROM workspaces, generate_series(1, {count})",
    )
    server = ServerProcess(tmp_path, nats_url, ZEPHYR_POSTGRES_DSN=migrated_dsn)
    try:
        async with running(settings_for(migrated_dsn, nats_url, slot_name, snapshot="never")):
            await server.start()
            async with raw_stream(server.address) as stream, raw_stream(server.address) as other:
                names = [f"s{at}" for at in range(8)]
                before = server.memory_bytes
                for name in names:
                    await stream.open(name, pb.Filter(kinds=["note"]), snapshot(), wait=False)
                # Nobody reads that stream, and another one is served all the while.
                await other.open("quick", pb.Filter(kinds=["note"]), snapshot())
                most = 0
                while not other["quick"].end.HasField("snapshot_end"):
                    await other.read()
                    most = max(most, server.memory_bytes)
                assert len(other["quick"].items) == count
                assert most - before < 60 * MIB, (most - before) / MIB
                for name in names[1:]:
                    request = pb.CloseSubscription(subscription_id=name)
                    await stream.send(pb.SubscribeRequest(close=request))
                await whole(stream, "s0")
                assert len(stream["s0"].items) == count
    finally:
        await server.kill()


async def test_a_new_epoch_brings_a_new_snapshot_on_the_same_subscription(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    execute(dsn, *FILL)
    first = RunningBridge(bridge_settings)
    await first.ready()
    await stream_reader.caught_up(dsn)
    async with opened_server(bridge_settings) as stream:
        await stream.open("snap", start=snapshot(), credit=pb.Credit(bytes=1 << 40))
        await stream.open("midst", start=snapshot(), credit=pb.Credit(messages=10))
        await stream.open("live")
        await whole(stream, "snap")
        await stream.until(lambda: len(stream["midst"].items) == 10)
        former = Cursor.decode(stream["snap"].end.cursor).epoch
        await first.stop()
        ended = await bridge("new-epoch", "--yes", settings=bridge_settings)
        assert ended.returncode == 0, ended.stderr
        await stream.closed("live")
        for name in ("snap", "midst"):
            await stream.until(lambda name=name: stream[name].said[-1:] == ["ready"], 30)  # type: ignore[misc]
            reset = stream[name].resets[-1]
            assert reset.reason == pb.RESET_REASON_EPOCH_CHANGED
            assert reset.action == pb.RESET_ACTION_AWAIT_SNAPSHOT
        # No slot sees these come and go.
        execute(dsn, "INSERT INTO users (email) SELECT 'gone' || n FROM generate_series(1, 9) n")
        execute(dsn, "DELETE FROM users WHERE email LIKE 'gone%'")
        async with running(bridge_settings):
            execute(dsn, "DELETE FROM notes WHERE id IN (SELECT id FROM notes LIMIT 100)")
            grant = pb.CreditGrant(subscription_id="midst", credit=pb.Credit(messages=1 << 40))
            await stream.send(pb.SubscribeRequest(credit=grant))
            await stream_reader.caught_up(dsn)
            stored = await read_all(stream_reader)
            last = [message.sequence for message in stored if not message.is_mark][-1]
            for name in ("snap", "midst"):
                await whole(stream, name)
                account = stream[name]
                await stream.until(lambda account=account: (account.through or 0) >= last)  # type: ignore[misc]
                assert account.said.count("ready") == 2
                assert Cursor.decode(account.end.cursor).epoch > former
                assert fold_items([*account.items, *account.events]) == fold_stored(stored, last)
                assert "closed" not in account.said


async def test_what_retention_took_from_a_slow_client_is_made_up_for_by_a_new_snapshot(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url, postgres_dsn=dsn, ring_entries=16) as address,
        raw_stream(address) as stream,
    ):
        execute(dsn, *FILL)
        await stream_reader.caught_up(dsn)
        await stream.open("s", start=snapshot(), credit=pb.Credit(messages=1000))
        await stream.until(lambda: len(stream["s"].items) == 1000)
        execute(dsn, "UPDATE notes SET title = 'x'")
        await stream_reader.caught_up(dsn)
        await stream_reader.api("STREAM.PURGE.ZEPHYR", {"keep": 10})
        grant = pb.CreditGrant(subscription_id="s", credit=pb.Credit(messages=1 << 40))
        await stream.send(pb.SubscribeRequest(credit=grant))
        await stream.until(lambda: "reset" in stream["s"].said)
        assert stream["s"].resets[-1].reason == pb.RESET_REASON_EXPIRED
        await whole(stream, "s")
        await stream.caught_up("s")
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT id::text FROM notes").fetchall()
        folded = fold_items(stream["s"].items)
        assert {entity for kind, entity in folded if kind == "note"} == {row[0] for row in rows}


async def test_postgres_restarts_in_mid_snapshot(snapshot_kit: SnapshotKit, stream_reader: Reader) -> None:
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    await stream.open("s", start=snapshot(), credit=pb.Credit(messages=500))
    await stream.until(lambda: len(stream["s"].items) == 500)
    # What a restart does to the server's connections, without the other tests' databases.
    snapshot_kit.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'zephyr-read' AND datname = current_database()"
    )
    grant = pb.CreditGrant(subscription_id="s", credit=pb.Credit(messages=1 << 40))
    await stream.send(pb.SubscribeRequest(credit=grant))
    await whole(stream, "s")
    through = Cursor.decode(stream["s"].end.cursor).sequence
    assert fold_items(stream["s"].items) == fold_stored(await read_all(stream_reader), through)


async def test_commits_that_wait_for_a_standby_are_not_passed_over(
    spare_postgres: PostgresServer, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    dsn = spare_postgres.dsn
    settings = settings_for(dsn, nats_url, slot_name)
    insert = "INSERT INTO users (email) VALUES ('waits')"
    standbys = "ALTER SYSTEM SET synchronous_standby_names = '{}'"
    async with running(settings), opened_server(settings) as stream:
        execute(dsn, standbys.format("nobody"), "SELECT pg_reload_conf()")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await eventually(lambda: _setting(dsn, "synchronous_standby_names") == "nobody")
            waiting = asyncio.ensure_future(connection.execute(insert))
            # The event is there, the row is not to be seen.
            await stream.open("live", start=earliest())
            await stream.until(lambda: stream["live"].events)
            await stream.open("s", start=snapshot())
            error = from_error((await stream.closed("s")).error)
            assert isinstance(error, Unavailable)
            assert "standby" in error.message
            execute(dsn, standbys.format(""), "SELECT pg_reload_conf()")
            await waiting
        await stream.open("t", start=snapshot())
        await whole(stream, "t")
        assert [item.event.user.email for item in stream["t"].items] == ["waits"]


def _setting(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row is not None else ""
