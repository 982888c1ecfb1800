"""Two bridges of one slot: one leads, the other waits and takes over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, check, more, writing
from tests.fixtures.bridge import RunningBridge, running
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader
from tests.integration.bridge_command import HELD, execute

TAKEOVER_S = 30
"""Half of what Postgres would take to notice by itself (wal_sender_timeout). The lock is asked for four times a
second; the rest is the opening of a term, on a machine that may be busy."""


@pytest.fixture
def standby_settings(bridge_settings: BridgeSettings) -> BridgeSettings:
    return bridge_settings.model_copy(update={"standby": True})


@pytest.fixture
def pair(standby_settings: BridgeSettings, tmp_path: Path) -> Iterator[list[BridgeProcess]]:
    """Two bridges on the test's own database and NATS; not started yet."""
    processes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        processes.append(BridgeProcess(folder, environment_for(standby_settings)))
    yield processes
    for process in processes:
        process.kill()


async def stands_by(process: BridgeProcess) -> None:
    await eventually(lambda: process.log.count("standing by") > 0 and not process.is_ready(), timeout=30)


async def test_a_standby_takes_over_when_the_leader_is_killed(
    pair: list[BridgeProcess], stream_reader: Reader, migrated_dsn: str
) -> None:
    leader, standby = pair
    writer = Writer(migrated_dsn, 7)
    await leader.start()
    standby.spawn()
    await stands_by(standby)
    await writer.prepare()
    async with writing(writer):
        for _ in range(3):
            await more(writer, 10)
            assert leader.is_ready()
            assert not standby.is_ready()
            leader.kill()
            await eventually(standby.is_ready, timeout=TAKEOVER_S, what="the standby leads")
            leader, standby = standby, leader
            standby.spawn()
            await stands_by(standby)
        await more(writer, 10)
    assert await check(stream_reader, writer) > 30


async def test_a_standby_ends_at_once_and_outlives_postgres_sessions(
    bridge_settings: BridgeSettings, standby_settings: BridgeSettings, tmp_path: Path, migrated_dsn: str
) -> None:
    process = BridgeProcess(tmp_path, environment_for(standby_settings))
    try:
        async with running(bridge_settings) as leader:
            process.spawn()
            await stands_by(process)
            # The standby's session breaks: it comes back and waits again.
            execute(
                migrated_dsn,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'zephyr-bridge' AND query LIKE '%try_advisory_lock%'",
            )
            await eventually(lambda: process.log.count("standing by") == 2, timeout=30)
            process.send(signal.SIGTERM)
            code = await asyncio.to_thread(process.process.wait, 5)
            assert code == 0, process.log
            assert "Traceback" not in process.log
            assert len(leader.terms) == 1
    finally:
        process.kill()


async def test_without_standby_it_ends(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    settings = bridge_settings.model_copy(update={"lock_wait_s": 0.1})
    process = BridgeProcess(tmp_path, environment_for(settings))
    try:
        async with running(bridge_settings):
            process.spawn()
            assert await asyncio.to_thread(process.process.wait, 20) == HELD
            assert "standing by" not in process.log
    finally:
        process.kill()


async def test_a_zombie_is_fenced_and_stands_by(
    standby_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path, migrated_dsn: str
) -> None:
    writer = Writer(migrated_dsn, 7)
    name = migrated_dsn.rpartition("/")[2]
    execute(migrated_dsn, f"ALTER DATABASE {name} SET wal_sender_timeout = '1s'")
    zombie = BridgeProcess(tmp_path, environment_for(standby_settings))
    try:
        await zombie.start()
        await writer.prepare()
        second = RunningBridge(standby_settings)
        async with writing(writer):
            try:
                await more(writer, 10)
                zombie.send(signal.SIGSTOP)
                await more(writer, 10)
                await second.ready()
                await more(writer, 10)
                zombie.send(signal.SIGCONT)
                await stands_by(zombie)
                await more(writer, 5)
                assert len(second.terms) == 1
            finally:
                zombie.send(signal.SIGCONT)
                await second.stop()
            # And leads again when the second is gone.
            await eventually(zombie.is_ready, timeout=TAKEOVER_S, what="the zombie leads")
            await more(writer, 5)
        assert await check(stream_reader, writer) > 30
    finally:
        zombie.kill()


async def test_a_server_that_a_standby_cannot_hear_is_noticed(
    bridge_settings: BridgeSettings, standby_settings: BridgeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.slot._LOCK_ANSWER_S", 0.3)
    asks = "application_name = 'zephyr-bridge' AND datname = current_database() AND query LIKE '%try_adv%'"

    def pid() -> int:
        with psycopg.connect(bridge_settings.postgres_dsn) as connection:
            row = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {asks}".encode()).fetchone()
        return int(row[0]) if row is not None else 0

    async with running(bridge_settings):
        standby = RunningBridge(standby_settings)
        try:
            frozen = await eventually(pid)
            os.kill(frozen, signal.SIGSTOP)
            try:
                await eventually(lambda: pid() not in (0, frozen) or len(standby.ended) > 0, timeout=30)
            finally:
                os.kill(frozen, signal.SIGCONT)
            assert not standby.task.done()
        finally:
            await standby.stop()
