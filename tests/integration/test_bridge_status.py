"""``zephyr bridge status`` beside running, waiting and dead bridges, and with servers away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bridge.settings import BridgeSettings
from bridge.survey import survey
from tests.fixtures.bridge import RunningBridge, running
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader
from tests.integration.bridge_command import bridge, execute
from zephyr.stack.nats import NatsServer


async def status(settings: BridgeSettings, folder: Path, code: int) -> tuple[str, dict[str, Any]]:
    """What it prints and what it writes; it must end with ``code``."""
    path = folder / "status.json"
    ended = await bridge("status", "--json", str(path), settings=settings)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout, dict(json.loads(path.read_bytes()))


def watching(settings: BridgeSettings, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "zephyr", "bridge", "status", "--watch", "--json", str(path)],
        env=environment_for(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


async def test_a_leader_and_a_standby(
    bridge_settings: BridgeSettings, bridge_process: BridgeProcess, stream_reader: Reader, tmp_path: Path
) -> None:
    await bridge_process.start()
    execute(bridge_settings.postgres_dsn, "INSERT INTO users (email) VALUES ('one')")
    await stream_reader.caught_up(bridge_settings.postgres_dsn)
    standby = RunningBridge(bridge_settings.model_copy(update={"standby": True}))
    try:

        async def is_there() -> bool:
            found = await survey(bridge_settings)
            return [each["role"] for each in found.bridges] == ["leader", "standby"]

        await eventually(is_there)
        text, found = await status(bridge_settings, tmp_path, 0)
        leader, waiting = found["bridges"]
        assert "a bridge leads and streams" in text
        assert leader["owner"] in text
        assert waiting["owner"] in text
        assert found["leads"]
        assert found["errors"] == {}
        assert leader["pid"] == bridge_process.process.pid
        assert leader["term"] == found["stream"]["owner"]["term"] == bridge_process.term
        assert leader["owner"] == found["stream"]["owner"]["owner"]
        assert leader["epoch"] == found["stream"]["epoch"]
        assert leader["in_flight"]["commit_lsn"] == 0
        assert [each["holds_lock"] for each in found["sessions"]] == [True, False]
        assert found["sessions"][0]["pid"] == leader["backend_pid"] == found["slot"]["active_pid"]
        assert found["slot"]["wal_status"] == "reserved"
        assert found["slot"]["restart_lsn"] <= found["slot"]["confirmed_lsn"] <= found["slot"]["wal_lsn"]
        assert found["lag_bytes"] >= 0
        assert found["lag_s"] >= 0
    finally:
        await standby.stop()


async def test_no_bridge_runs_and_what_is_known_all_the_same(
    bridge_settings: BridgeSettings, stream_reader: Reader, tmp_path: Path
) -> None:
    text, found = await status(bridge_settings, tmp_path, 1)
    assert "no bridge runs" in text
    assert "there is no slot" in text
    assert "there is no stream" in text
    async with running(bridge_settings) as first:
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    execute(bridge_settings.postgres_dsn, "INSERT INTO users (email) VALUES ('unread')")
    text, found = await status(bridge_settings, tmp_path, 1)
    assert "no bridge runs" in text
    assert found["bridges"] == found["sessions"] == []
    assert found["stream"]["epoch"] == first.terms[0].epoch
    assert found["stream"]["owner"]["term"] == 1
    assert found["lag_bytes"] > 0
    assert found["slot"]["held_wal_bytes"] > 0
    assert "the last that led" in text


async def test_servers_are_away(
    bridge_settings: BridgeSettings, nats_server: NatsServer, tmp_path: Path
) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/postgres"
    async with running(bridge_settings):
        text, found = await status(bridge_settings.model_copy(update={"postgres_dsn": nowhere}), tmp_path, 3)
        assert "Postgres cannot be reached" in text
        assert found["leads"]
        assert found["bridges"][0]["role"] == "leader"
        text, found = await status(
            bridge_settings.model_copy(update={"nats_url": "nats://127.0.0.1:1"}), tmp_path, 3
        )
        assert "NATS cannot be reached" in text
        assert found["leads"]
        assert found["sessions"][0]["state"] == "streaming"
    await nats_server.stop()
    text, found = await status(bridge_settings.model_copy(update={"postgres_dsn": nowhere}), tmp_path, 3)
    assert "it cannot be known" in text
    assert set(found["errors"]) == {"postgres", "nats"}


async def test_a_bridge_in_trouble_says_so(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings) as first:
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        terms = len(first.terms)
        execute(
            bridge_settings.postgres_dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'zephyr-bridge'",
        )
        await eventually(lambda: len(first.terms) > terms, timeout=30)

        async def says_why() -> bool:
            found = await survey(bridge_settings)
            leader = found.leader
            return leader is not None and leader["terms"] == 2 and "Postgres" in leader["last_error"]

        await eventually(says_why)


async def test_at_rest_nothing_is_in_flight(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        execute(bridge_settings.postgres_dsn, "INSERT INTO users (email) VALUES ('one')")
        await stream_reader.caught_up(bridge_settings.postgres_dsn)

        async def is_at_rest() -> bool:
            leader = (await survey(bridge_settings)).leader
            assert leader is not None
            assert 0 < leader["confirmed_lsn"] <= leader["stored_lsn"]
            return bool(leader["in_flight"] == {"messages": 0, "bytes": 0, "commit_lsn": 0, "index": 0})

        await eventually(is_at_rest)


async def test_watch_goes_on_until_it_is_told(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    process = watching(bridge_settings, path)
    try:

        def leads() -> bool:
            return path.exists() and bool(json.loads(path.read_bytes())["leads"])

        await eventually(path.exists, timeout=30)
        assert not leads()
        async with running(bridge_settings):
            await eventually(leads)
    finally:
        process.terminate()
        _, errors = await asyncio.to_thread(process.communicate, None, 10)
    assert b"Traceback" not in errors
