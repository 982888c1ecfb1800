"""The broker stalls, and Postgres does not notice: its session lives on, its WAL is kept, and the operator is told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from structlog.testing import capture_logs

from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, check, more, writing
from tests.fixtures.bridge import running
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import open_reader
from tests.integration.bridge_command import execute
from zephyr.stack.nats import NatsServer

SEED = 7
_SESSION = """
SELECT s.active_pid, r.reply_time, (s.confirmed_flush_lsn - '0/0')::bigint AS confirmed,
    clock_timestamp() AS now, (pg_current_wal_lsn() - s.restart_lsn)::bigint AS held
FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = %s
"""


def said(logs: list[Any], words: str) -> Callable[[], int]:
    return lambda: sum(words in entry["event"] for entry in logs)


@pytest.mark.timeout(300)
async def test_a_broker_that_stalls_past_wal_sender_timeout(
    bridge_settings: BridgeSettings, nats_server: NatsServer, migrated_dsn: str
) -> None:
    name = migrated_dsn.rpartition("/")[2]
    # Shorter than the mark interval, too: the feedback has a clock of its own.
    execute(migrated_dsn, f"ALTER DATABASE {name} SET wal_sender_timeout = '2s'")
    settings = bridge_settings.model_copy(
        update={
            "publish_timeout_s": 60,
            "mark_interval_s": 5,
            # Late after three: above what a round trip takes on a busy machine.
            "heartbeat_s": 1,
            "held_wal_warn_bytes": 1_000_000,
        }
    )

    async def session() -> DictRow:
        connection: AsyncConnection[DictRow] = await AsyncConnection.connect(
            migrated_dsn, autocommit=True, row_factory=dict_row
        )
        async with connection:
            row = await (await connection.execute(_SESSION, (settings.slot,))).fetchone()
        assert row is not None
        return row

    writer = Writer(migrated_dsn, SEED)
    with capture_logs() as logs:
        late, in_time = said(logs, "a heartbeat did not come back"), said(logs, "heartbeats come back")
        much, little = said(logs, "the slot holds much WAL"), said(logs, "holds little WAL again")
        async with running(settings) as bridge:
            await writer.prepare()
            async with writing(writer):
                await more(writer, 10)
                before = await session()
                assert nats_server.pid is not None
                os.kill(nats_server.pid, signal.SIGSTOP)
                try:
                    frozen = await session()
                    # Elsewhere: the bridge shares our loop, and answers Postgres from it.
                    await asyncio.to_thread(
                        execute,
                        migrated_dsn,
                        "CREATE TABLE busy (t text)",
                        "INSERT INTO busy SELECT repeat(i::text, 100) FROM generate_series(1, 5000) i",
                    )

                    async def heard_for_long() -> bool:
                        now = await session()
                        assert now["active_pid"] == before["active_pid"]
                        assert now["reply_time"] is not None
                        return bool((now["reply_time"] - frozen["now"]).total_seconds() > 5)

                    await eventually(heard_for_long, timeout=40, what="feedback for more than two timeouts")
                    # Once the outbox is full: only then does the bridge stop to read.
                    await eventually(lambda: late() > in_time(), timeout=40, what="late heartbeat")
                    await eventually(lambda: much() > little(), what="much held WAL")
                    # Nothing was stored meanwhile, so nothing more may be confirmed than what was stored before.
                    first = (await session())["confirmed"]
                    await more(writer, 10)
                    assert (await session())["confirmed"] == first
                    assert (await session())["held"] > 1_000_000
                    # A condition that lasts is not said at each look. On a busy machine it may have come before.
                    assert late() - in_time() <= 1
                    assert much() - little() == 1
                finally:
                    os.kill(nats_server.pid, signal.SIGCONT)
                await eventually(lambda: in_time() == late(), what="heartbeats")

                async def is_freed() -> bool:
                    await asyncio.to_thread(execute, migrated_dsn, "SELECT pg_log_standby_snapshot()")
                    return little() == much()

                await eventually(is_freed, timeout=30)
                await more(writer, 5)
            assert len(bridge.terms) == 1, "; ".join(
                f"{each['event']} ({each.get('cause')})" for each in logs if each["log_level"] != "info"
            )
            assert (await session())["active_pid"] == before["active_pid"]
            async with open_reader(nats_server.url) as reader:
                assert await check(reader, writer) > 30


async def test_held_wal_is_watched_while_the_broker_is_away(
    bridge_settings: BridgeSettings, nats_server: NatsServer, migrated_dsn: str
) -> None:
    settings = bridge_settings.model_copy(update={"heartbeat_s": 0.2, "held_wal_warn_bytes": 1_000_000})
    with capture_logs() as logs:
        async with running(settings) as bridge:
            await nats_server.stop()
            await eventually(lambda: len(bridge.ended) > 0, timeout=30)
            execute(
                migrated_dsn,
                "CREATE TABLE busy (t text)",
                "INSERT INTO busy SELECT repeat(i::text, 100) FROM generate_series(1, 5000) i",
            )
            await eventually(said(logs, "the slot holds much WAL"), timeout=30)
            await nats_server.start()

            def is_freed() -> bool:
                execute(migrated_dsn, "SELECT pg_log_standby_snapshot()")
                return said(logs, "holds little WAL again")() > 0

            await eventually(is_freed, timeout=30)
