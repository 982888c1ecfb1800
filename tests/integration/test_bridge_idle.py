"""Published tables at rest: the slot moves on all the same, marks are written, heartbeats come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from bridge.change import LogicalMessage
from bridge.heartbeat import Heartbeat
from bridge.settings import BridgeSettings
from bridge.survey import survey
from tests.fixtures.bridge import running
from tests.fixtures.databases import database
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import POSITION, Reader
from tests.integration.bridge_command import execute
from zephyr.stack.postgres import PostgresServer

BUSY = (
    "CREATE TABLE IF NOT EXISTS busy (t text)",
    "INSERT INTO busy SELECT repeat(i::text, 100) FROM generate_series(1, 5000) i",
    # From here on a slot may begin to decode: the server logs it by itself every 15 s, while it is busy.
    "SELECT pg_log_standby_snapshot()",
)


def number(dsn: str, query: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row is not None else 0


async def slot_follows(settings: BridgeSettings, busy_dsn: str) -> None:
    """Writes much that does not concern the slot, and waits until none of it is held."""
    dsn, where = settings.postgres_dsn, f"FROM pg_replication_slots WHERE slot_name = '{settings.slot}'"
    for _ in range(2):
        execute(busy_dsn, *BUSY)
        target = number(dsn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        for column in ("confirmed_flush_lsn", "restart_lsn"):

            async def is_past(column: str = column, target: int = target) -> bool:
                # What was confirmed frees the WAL before the last such record, so that one more is needed.
                execute(busy_dsn, "SELECT pg_log_standby_snapshot()")
                return number(dsn, f"SELECT ({column} - '0/0')::bigint {where}") >= target

            await eventually(is_past, timeout=30, what=f"{column} moves on")


@pytest.mark.parametrize("heartbeat_s", [0, 0.2])
async def test_busy_tables_that_are_not_published_pin_no_wal(
    bridge_settings: BridgeSettings, stream_reader: Reader, heartbeat_s: float
) -> None:
    settings = bridge_settings.model_copy(update={"heartbeat_s": heartbeat_s})
    async with running(settings) as bridge:
        await slot_follows(settings, settings.postgres_dsn)
        assert await stream_reader.events() == []
        assert len(bridge.terms) == 1


@pytest.mark.parametrize("heartbeat_s", [0, 0.2])
async def test_another_busy_database_pins_no_wal(
    bridge_settings: BridgeSettings, postgres_server: PostgresServer, heartbeat_s: float
) -> None:
    settings = bridge_settings.model_copy(update={"heartbeat_s": heartbeat_s})
    async with running(settings) as bridge:
        with database(postgres_server) as other:
            await slot_follows(settings, other)
        assert len(bridge.terms) == 1


@pytest.mark.parametrize("heartbeat_s", [0, 0.2])
async def test_an_idle_source_still_marks(
    bridge_settings: BridgeSettings, stream_reader: Reader, heartbeat_s: float
) -> None:
    async with running(bridge_settings.model_copy(update={"heartbeat_s": heartbeat_s})):
        seen = set()

        async def moves_on() -> bool:
            mark = await stream_reader.get(last_by_subj=POSITION)
            assert mark is not None
            seen.add(mark.position.wal_time)
            return len(seen) >= 4

        await eventually(moves_on)
        assert await stream_reader.events() == []


async def test_heartbeats_come_back_and_leave_no_event(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    settings = bridge_settings.model_copy(update={"heartbeat_s": 0.1})
    async with running(settings):

        async def leader() -> dict[str, Any]:
            return (await survey(settings)).leader or {}

        trips = set()

        async def come_back() -> bool:
            beat = (await leader())["heartbeat"]
            trips.add(beat["round_trip_s"])
            return len(trips - {None}) >= 2 and not beat["is_late"]

        await eventually(come_back)
        assert (await leader())["held_wal_bytes"] >= 0
        execute(settings.postgres_dsn, "INSERT INTO users (email) VALUES ('one')")
        await stream_reader.caught_up(settings.postgres_dsn)
        assert len(await stream_reader.events()) == 1


@contextlib.contextmanager
def lesser_role(settings: BridgeSettings) -> Iterator[str]:
    """The DSN of a role that may read the catalog and not write to the WAL."""
    role = f"role_{settings.slot}"
    execute(
        settings.postgres_dsn,
        f"CREATE ROLE {role} LOGIN REPLICATION",
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text, boolean) FROM PUBLIC",
    )
    try:
        head, _, rest = settings.postgres_dsn.rpartition("@")
        yield f"{head.rpartition('/')[0]}/{role}@{rest}"
    finally:
        execute(settings.postgres_dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_role_that_may_not_emit_is_warned_of_once(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    with lesser_role(bridge_settings) as dsn, capture_logs() as logs:
        settings = bridge_settings.model_copy(update={"postgres_dsn": dsn, "heartbeat_s": 0.05})
        async with running(settings) as bridge:
            looked_at = f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'role_{settings.slot}'"
            seen = (
                f"{looked_at} AND application_name = 'zephyr-bridge-heartbeat' AND query LIKE '%wal_status%'"
            )
            await eventually(lambda: number(bridge_settings.postgres_dsn, seen))

            async def watches() -> bool:
                leader = (await survey(bridge_settings)).leader
                return leader is not None and leader["held_wal_bytes"] is not None

            await eventually(watches)
            assert len(bridge.terms) == 1
    warned = [entry for entry in logs if "no heartbeats" in entry["event"]]
    assert len(warned) == 1
    assert "permission denied" in warned[0]["cause"]
    assert "ZEPHYR_BRIDGE_HEARTBEAT_S=0" in warned[0]["mend"]


async def test_a_heartbeat_goes_on_on_another_connection(bridge_settings: BridgeSettings) -> None:
    settings = bridge_settings.model_copy(update={"heartbeat_s": 0.05})
    own = "FROM pg_stat_activity WHERE application_name = 'zephyr-bridge-heartbeat' AND datname = current_database()"
    async with running(settings) as bridge:
        pid = await eventually(lambda: number(settings.postgres_dsn, f"SELECT coalesce(max(pid), 0) {own}"))
        execute(settings.postgres_dsn, f"SELECT pg_terminate_backend({pid})")
        await eventually(
            lambda: number(settings.postgres_dsn, f"SELECT coalesce(max(pid), 0) {own} AND pid <> {pid}")
        )
        assert len(bridge.terms) == 1
        assert not bridge.task.done()


async def test_what_others_emit_is_no_heartbeat(bridge_settings: BridgeSettings) -> None:
    beat = Heartbeat(bridge_settings)
    for content in (b"", b"x 1", b"\xff", b"1", b" "):
        beat.heard(LogicalMessage("zephyr.heartbeat", content, 1, True))
    beat.heard(LogicalMessage("zephyr.other", b"", 1, True))
    assert beat.round_trip_s is None
