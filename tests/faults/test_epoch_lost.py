"""The slot is dropped or invalidated while a writer commits, or the source is another one.

Never continued in silence: the bridge ends with 6, or begins a new epoch by policy. Then the tables are copied
again, and what vanished while nobody looked is said to be deleted, once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection

from bridge.errors import EpochLost
from bridge.settings import BridgeSettings
from bridge.slot import open_replication
from tests.faults.oracle import Writer, check_order, more, writing
from tests.faults.test_bridge_faults import SEED
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.servers import FAST_POSTGRES
from tests.fixtures.stream_reader import Reader, Stored, open_reader
from tests.fixtures.stream_states import check_states, read_all
from tests.integration.bridge_command import EPOCH, refused
from tests.integration.bridge_command import bridge as bridge_command
from zephyr.migrations.runner import migrate
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer

STATUS = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
POLICIES = ("stop", "renew")


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_slot_is_dropped_in_mid_stream(
    policy: str, bridge_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path
) -> None:
    process = process_of(bridge_settings, policy, tmp_path)
    writer = Writer(bridge_settings.postgres_dsn, SEED)
    try:
        await process.start()
        await writer.prepare()
        async with writing(writer):
            gone = await some_users(writer, stream_reader)
            await drop(bridge_settings)
            await not_started(bridge_settings.postgres_dsn, bridge_settings.slot, "is gone")
            await delete(bridge_settings.postgres_dsn, gone)
            await more(writer, 10)
            await renewed(process, policy, bridge_settings, stream_reader)
            await more(writer, 10)
        await check(stream_reader, bridge_settings.postgres_dsn, gone)
    finally:
        process.kill()


async def test_killed_while_it_renews(
    bridge_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path
) -> None:
    process = process_of(bridge_settings, "renew", tmp_path)
    writer = Writer(bridge_settings.postgres_dsn, SEED)
    try:
        await process.start()
        await writer.prepare()
        async with writing(writer):
            gone = await some_users(writer, stream_reader)
            former = await epoch_of(stream_reader)
            await drop(bridge_settings)
            await delete(bridge_settings.postgres_dsn, gone)

            async def has_begun() -> bool:
                return await epoch_of(stream_reader) != former

            await eventually(has_begun, timeout=30)
            # The stream has another epoch: its marks may have, and the copy may have begun.
            process.kill()
            await more(writer, 10)
            await process.start(timeout=30)
            await more(writer, 10)
        await check(stream_reader, bridge_settings.postgres_dsn, gone)
    finally:
        process.kill()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_slot_is_invalidated_in_mid_stream(
    policy: str, nats_server: NatsServer, slot_name: str, tmp_path: Path
) -> None:
    limits = {"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0", "min_wal_size": "32MB"}
    async with postgres(tmp_path / "postgres", limits) as server:
        # So long an acknowledgement is waited for that the session is there when the server gives the slot up.
        settings = settings_for(server.dsn, nats_server.url, slot_name, publish_timeout_s=20)
        process = process_of(settings, policy, tmp_path)
        writer = Writer(server.dsn, SEED)
        try:
            await process.start()
            await writer.prepare()
            async with writing(writer), open_reader(nats_server.url) as reader:
                gone = await some_users(writer, reader)
                assert nats_server.pid is not None
                os.kill(nats_server.pid, signal.SIGSTOP)
                try:
                    await more(writer, 10)
                    await invalidate(server.dsn, slot_name)
                    await not_started(server.dsn, slot_name, "invalidated")
                    await delete(server.dsn, gone)
                finally:
                    os.kill(nats_server.pid, signal.SIGCONT)
                await renewed(process, policy, settings, reader)
                await more(writer, 10)
            async with open_reader(nats_server.url) as reader:
                await check(reader, server.dsn, gone)
        finally:
            process.kill()


async def test_another_source(
    migrated_dsn: str, nats_server: NatsServer, slot_name: str, tmp_path: Path
) -> None:
    """Another Postgres, with another history and other rows, under the settings of the former one."""
    writer = Writer(migrated_dsn, SEED)
    async with running(settings_for(migrated_dsn, nats_server.url, slot_name)):
        await writer.prepare()
        async with writing(writer):
            await more(writer, 20)
        async with open_reader(nats_server.url) as reader:
            await reader.caught_up(migrated_dsn)
    async with postgres(tmp_path / "postgres", {}) as server, open_reader(nats_server.url) as reader:
        settings = settings_for(server.dsn, nats_server.url, slot_name)
        other = Writer(server.dsn, SEED + 1)
        await other.prepare()
        async with writing(other):
            await more(other, 10)
            before = (await reader.info())["state"]["last_seq"]
            await refused(EPOCH, "the stream was written from Postgres", "new-epoch", settings=settings)
            assert (await reader.info())["state"]["last_seq"] == before
            process = process_of(settings, "renew", tmp_path)
            try:
                await process.start()
                await more(other, 10)
                await reader.caught_up(server.dsn)
            finally:
                process.kill()
        async with running(settings):
            await reader.caught_up(server.dsn)
        events = [message for message in await read_all(reader) if not message.is_mark]
        await check_states(events, server.dsn)
        check_order([each for each in events if each.sequence > before and "Zephyr-Commit" in each.headers])
        # What only the former source had is gone.
        ended = {each.subject for each in events if each.sequence > before and verb_of(each) == "deleted"}
        assert len(ended) > 10
    # The former source is as foreign now, and has a slot that fed this stream.
    await refused(
        EPOCH,
        "the stream was written from Postgres",
        settings=settings_for(migrated_dsn, nats_server.url, slot_name),
    )


def process_of(settings: BridgeSettings, policy: str, folder: Path) -> BridgeProcess:
    return BridgeProcess(folder, environment_for(settings) | {"ZEPHYR_BRIDGE_ON_EPOCH_LOST": policy})


@asynccontextmanager
async def postgres(folder: Path, settings: dict[str, str]) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(folder, {**FAST_POSTGRES, "shared_buffers": "16MB", **settings})
    await server.start()
    try:
        await asyncio.to_thread(migrate, server.dsn)
        yield server
    finally:
        await server.stop()


async def some_users(writer: Writer, reader: Reader) -> list[str]:
    """Users that stand in the stream, and that the writer does not touch."""
    await more(writer, 10)
    async with await AsyncConnection.connect(writer.dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "INSERT INTO users (email) SELECT 'gone ' || n FROM generate_series(1, 20) AS n RETURNING id::text"
        )
        users = [str(row[0]) for row in await cursor.fetchall()]
    await reader.caught_up(writer.dsn)
    return users


async def delete(dsn: str, users: list[str]) -> None:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("DELETE FROM users WHERE id = ANY (%s::uuid[])", (users,))


async def drop(settings: BridgeSettings) -> None:
    """Drops the slot in spite of who reads it, and who comes back at once."""
    async with await AsyncConnection.connect(settings.postgres_dsn, autocommit=True) as connection:

        async def is_dropped() -> bool:
            await connection.execute(
                "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots"
                " WHERE slot_name = %s AND active_pid IS NOT NULL",
                (settings.slot,),
            )
            try:
                await connection.execute("SELECT pg_drop_replication_slot(%s)", (settings.slot,))
            except psycopg.errors.ObjectInUse:
                return False
            return True

        await eventually(is_dropped)


async def invalidate(dsn: str, slot: str) -> None:
    """Writes WAL until the server gives the slot up."""
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def is_lost() -> bool:
            await connection.execute("SELECT pg_logical_emit_message(false, 'test', '')")
            await connection.execute("SELECT pg_switch_wal()")
            await connection.execute("CHECKPOINT")
            row = await (await connection.execute(STATUS, (slot,))).fetchone()
            return row is not None and row[0] == "lost"

        await eventually(is_lost, timeout=30, what="the slot is invalidated")


async def not_started(dsn: str, slot: str, words: str) -> None:
    """Whoever has just looked at the slot, and reads it now, learns that the epoch is lost."""
    replication = await open_replication(dsn)
    try:
        with pytest.raises(EpochLost, match=words):
            await replication.start(slot, slot)
    finally:
        await replication.close()


async def epoch_of(reader: Reader) -> str:
    return str((await reader.info())["config"]["metadata"]["zephyr-epoch"])


async def renewed(process: BridgeProcess, policy: str, settings: BridgeSettings, reader: Reader) -> None:
    """The bridge ends and a person begins a new epoch, or it does so itself; then it streams."""
    if policy == "stop":
        code = await asyncio.to_thread(process.process.wait, 30)
        assert code == EPOCH, process.log[-2000:]
        assert "Traceback" not in process.log, process.log[-2000:]
        errors = [line for line in process.log.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, process.log[-2000:]
        assert "zephyr bridge new-epoch" in errors[0]
        ended = await bridge_command("new-epoch", "--yes", settings=settings)
        assert ended.returncode == 0, ended.stderr
        await process.start(timeout=30)
        return

    async def has_marked() -> bool:
        mark = await reader.get(last_by_subj="zephyr._mark.0.position")
        assert process.process.poll() is None, process.log[-2000:]
        return (
            mark is not None and mark.position.epoch == await epoch_of(reader) and mark.position.wal_lsn > 0
        )

    await eventually(lambda: "beginning a new one" in process.log, timeout=30)
    await eventually(has_marked, timeout=30)


def verb_of(message: Stored) -> str:
    return message.headers["Zephyr-Verb"]


async def check(reader: Reader, dsn: str, gone: list[str]) -> None:
    """The stream folds to the tables, says nothing twice, and says of each that vanished that it is deleted, once."""
    await reader.caught_up(dsn, timeout=30)
    events = [message for message in await read_all(reader) if not message.is_mark]
    await check_states(events, dsn)
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    epoch = await epoch_of(reader)
    changes = [message for message in events if "Zephyr-Commit" in message.headers]
    for has_epoch in (True, False):
        check_order([each for each in changes if (f".{epoch}." in each.headers["Zephyr-Id"]) is has_epoch])
    ended = [m.subject.split(".")[4] for m in events if verb_of(m) == "deleted"]
    assert sorted(each for each in ended if each in gone) == sorted(gone)
