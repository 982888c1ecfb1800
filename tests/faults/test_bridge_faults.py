"""Servers and bridge are killed, stopped and frozen while a writer commits: nothing is lost or repeated.

Every moment of a fault is a condition on what was committed or stored, drawn from a seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, check, more, writing
from tests.fixtures.bridge import RunningBridge, running, settings_for
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import OWNER, Reader, open_reader
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer

SEED = int(os.environ.get("ZEPHYR_TEST_SEED", "7"))


async def last_term(reader: Reader) -> int:
    mark = await reader.get(last_by_subj=OWNER)
    return mark.owner.term if mark is not None else 0


async def streams_again(bridge: RunningBridge, terms: int) -> None:
    """Waits for a term after the first ``terms``; the bridge's error, if it ended."""

    def is_so() -> bool:
        if bridge.task.done():
            raise RuntimeError("the bridge ended") from bridge.task.exception()
        return len(bridge.terms) > terms

    await eventually(is_so, timeout=30, what="another term streams")


async def term_ends(bridge: RunningBridge) -> None:
    ended = len(bridge.ended)
    await eventually(lambda: len(bridge.ended) > ended, timeout=30, what="the bridge notices")


@pytest.mark.timeout(300)
async def test_bridge_killed(bridge_process: BridgeProcess, stream_reader: Reader, migrated_dsn: str) -> None:
    chance = random.Random(SEED)
    writer = Writer(migrated_dsn, SEED)
    await bridge_process.start()
    await writer.prepare()
    async with writing(writer):
        for number in range(10):
            if number % 3 == 2:
                # In the midst of opening a term: its owner mark is there, and it does not stream yet.
                term = await last_term(stream_reader)
                bridge_process.spawn()

                async def is_opened(former: int = term) -> bool:
                    return await last_term(stream_reader) > former

                await eventually(is_opened, timeout=30)
            else:
                if bridge_process.process.poll() is not None:
                    await bridge_process.start()
                await more(writer, chance.randrange(1, 12))
            bridge_process.kill()
        await bridge_process.start()
        await more(writer, 5)
    assert await check(stream_reader, writer) > 100


async def test_nats_killed_stopped_and_frozen(
    bridge_settings: BridgeSettings, nats_server: NatsServer, migrated_dsn: str
) -> None:
    chance = random.Random(SEED)
    writer = Writer(migrated_dsn, SEED)
    settings = bridge_settings.model_copy(update={"publish_timeout_s": 0.5})
    async with running(settings) as bridge:
        await writer.prepare()
        async with writing(writer):
            for how in ("kill", "stop", "freeze", "kill", "freeze"):
                await more(writer, chance.randrange(1, 20))
                terms = len(bridge.terms)
                if how == "freeze":
                    # What was sent and not answered is stored when it thaws, or refused: never twice.
                    assert nats_server.pid is not None
                    os.kill(nats_server.pid, signal.SIGSTOP)
                    try:
                        await term_ends(bridge)
                    finally:
                        os.kill(nats_server.pid, signal.SIGCONT)
                else:
                    await (nats_server.kill() if how == "kill" else nats_server.stop())
                    await more(writer, 10)
                    await nats_server.start()
                await streams_again(bridge, terms)
        async with open_reader(nats_server.url) as reader:
            assert await check(reader, writer) > 50


async def test_postgres_stopped_at_once_and_killed(
    spare_postgres: PostgresServer, nats_server: NatsServer, slot_name: str
) -> None:
    chance = random.Random(SEED)
    writer = Writer(spare_postgres.dsn, SEED)
    async with running(settings_for(spare_postgres.dsn, nats_server.url, slot_name)) as bridge:
        await writer.prepare()
        async with writing(writer):
            for how in ("immediate", "fast", "immediate"):
                await more(writer, chance.randrange(1, 20))
                terms = len(bridge.terms)
                if how == "immediate":
                    assert spare_postgres.pid is not None
                    os.kill(spare_postgres.pid, signal.SIGQUIT)
                    await spare_postgres.wait()
                else:
                    await spare_postgres.stop()
                await spare_postgres.start()
                await streams_again(bridge, terms)
            await more(writer, 5)
        async with open_reader(nats_server.url) as reader:
            assert await check(reader, writer) > 30


async def test_both_servers_and_the_bridge_at_once(
    spare_postgres: PostgresServer, nats_server: NatsServer, slot_name: str, tmp_path: Path
) -> None:
    writer = Writer(spare_postgres.dsn, SEED)
    settings = settings_for(spare_postgres.dsn, nats_server.url, slot_name)
    process = BridgeProcess(tmp_path, environment_for(settings))
    try:
        await process.start()
        await writer.prepare()
        async with writing(writer):
            for kills_bridge in (False, True):
                await more(writer, 10)
                term = process.term
                if kills_bridge:
                    process.kill()
                await nats_server.kill()
                assert spare_postgres.pid is not None
                os.kill(spare_postgres.pid, signal.SIGQUIT)
                await spare_postgres.wait()
                await spare_postgres.start()
                await nats_server.start()
                if kills_bridge:
                    await process.start()

                def goes_on(former: int = term) -> bool:
                    return process.is_ready() and process.term > former

                await eventually(goes_on, timeout=30)
            await more(writer, 10)
        async with open_reader(nats_server.url) as reader:
            assert await check(reader, writer) > 30
    finally:
        process.kill()


async def test_a_frozen_bridge_is_replaced_and_stores_nothing_when_it_thaws(
    bridge_process: BridgeProcess,
    bridge_settings: BridgeSettings,
    stream_reader: Reader,
    migrated_dsn: str,
) -> None:
    writer = Writer(migrated_dsn, SEED)
    name = migrated_dsn.rpartition("/")[2]
    with psycopg.connect(migrated_dsn, autocommit=True) as connection:
        # How long the server keeps a session, and with it the lock, that does not answer.
        connection.execute(f"ALTER DATABASE {name} SET wal_sender_timeout = '1s'")
    await bridge_process.start()
    await writer.prepare()
    async with writing(writer):
        await more(writer, 10)
        bridge_process.send(signal.SIGSTOP)
        # What is committed now waits in the frozen bridge's socket, and is published when it thaws.
        await more(writer, 10)
        try:
            async with running(bridge_settings.model_copy(update={"lock_wait_s": 20})) as second:
                await more(writer, 10)
                bridge_process.send(signal.SIGCONT)
                code = await asyncio.to_thread(bridge_process.process.wait, 30)
                assert code == 5, bridge_process.log
                assert "Traceback" not in bridge_process.log
                await more(writer, 5)
                assert len(second.terms) == 1
        finally:
            bridge_process.send(signal.SIGCONT)
        async with running(bridge_settings):
            await more(writer, 5)
            await stream_reader.caught_up(migrated_dsn)
    async with running(bridge_settings):
        assert await check(stream_reader, writer) > 30


async def test_a_former_session_of_its_own_may_hold_the_lock_for_a_while(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    lock = f"hashtextextended('zephyr.bridge.{bridge_settings.slot}', 0)"
    bridges_own = "application_name = 'zephyr-bridge' AND datname = current_database()"
    settings = bridge_settings.model_copy(update={"lock_wait_s": 0.1})
    async with (
        running(settings) as bridge,
        await psycopg.AsyncConnection.connect(migrated_dsn, autocommit=True) as other,
        await psycopg.AsyncConnection.connect(migrated_dsn, autocommit=True) as watch,
    ):
        waits = asyncio.ensure_future(other.execute(f"SELECT pg_advisory_lock({lock})".encode()))

        async def one(query: str) -> object:
            row = await (await watch.execute(query.encode())).fetchone()
            return row[0] if row is not None else None

        await eventually(
            lambda: one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        terms = len(bridge.terms)
        await one(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {bridges_own}")
        await waits
        tried = f"SELECT query_start FROM pg_stat_activity WHERE {bridges_own} AND query LIKE '%try_adv%'"
        first = await eventually(lambda: one(tried), what="the bridge asks for the lock")

        async def asks_again() -> bool:
            now = await one(tried)
            return now is not None and (now - first).total_seconds() > 0.5  # type: ignore[operator]

        await eventually(asks_again, what="it asks for longer than it would at its first start")
        assert not bridge.task.done()
        await other.execute(f"SELECT pg_advisory_unlock({lock})".encode())
        await streams_again(bridge, terms)
        await stream_reader.caught_up(migrated_dsn)
