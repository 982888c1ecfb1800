"""The whole stack in its order, with stand-ins for migration, bridge and server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psycopg
import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.servers import CopyCluster
from zephyr.stack import StackError, running_stack
from zephyr.stack.lock import DataLock
from zephyr.stack.running import Commands
from zephyr.stack.supervisor import Notice

MIGRATE = """
import os, psycopg
with psycopg.connect(os.environ["ZEPHYR_POSTGRES_DSN"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS migrated ()")
"""

# Refuses to run before the migration; is ready when it has a port; keeps the one it is told.
PART = """
import json, os, psycopg, signal, socket, sys
from pathlib import Path
with psycopg.connect(os.environ["ZEPHYR_POSTGRES_DSN"]) as connection:
    connection.execute("SELECT FROM migrated")
assert os.environ["ZEPHYR_BRIDGE_HOLD_BACK_S"] == "2"
assert os.environ["ZEPHYR_NATS_URL"].startswith("nats://127.0.0.1:")
assert os.environ["ZEPHYR_REDIS_URL"].startswith("redis://127.0.0.1:")
host, _, port = os.environ["ZEPHYR_LISTEN"].rpartition(":")
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.argv[1] == "server":
        listener.bind((host, int(port)))
        listener.listen()
    told = {"grpc": "%s:%d" % listener.getsockname()} if sys.argv[1] == "server" else {"slot": "s"}
    ready = Path(sys.argv[sys.argv.index("--ready-file") + 1])
    partial = ready.with_suffix(".partial")
    partial.write_text(json.dumps({"pid": os.getpid(), **told}))
    partial.replace(ready)
    signal.sigwait([signal.SIGTERM])
"""

FAST = {"fsync": "off"}


def python(source: str, *words: str) -> list[str]:
    return [sys.executable, "-c", source, *words]


STAND_INS = Commands(python(MIGRATE), python(PART, "bridge"), python(PART, "server"))


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_all_of_it(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "up.json"
    notices: list[Notice] = []
    file.write_text("of a former run")
    async with running_stack(
        data, json_file=file, commands=STAND_INS, on_notice=notices.append, postgres_settings=FAST
    ) as up:
        told = json.loads(file.read_text())
        assert told == json.loads((data / "stack.json").read_text()) == up.addresses()
        assert list(told) == ["grpc", "nats", "postgres", "redis", "data", "pids"]
        assert list(told["pids"]) == ["bridge", "server", "nats", "postgres", "redis"]
        assert told["data"] == str(data)
        assert DataLock.holder(data) == os.getpid()
        for name, pid in told["pids"].items():
            await up.supervisor.kill(name)
            await up.supervisor.start(name)
            assert up.pids[name] != pid
            assert json.loads(file.read_text())["pids"] == up.pids
        assert {**up.addresses(), "pids": None} == {**told, "pids": None}
        assert len([notice for notice in notices if "was ended by signal 9" in notice.text]) == 5
        pids = up.pids
    assert not file.exists()
    assert not (data / "stack.json").exists()
    assert DataLock.holder(data) is None
    assert not any(is_there(pid) for pid in pids.values())


async def test_a_second_run_goes_on_with_the_data(tmp_path: Path, copy_cluster: CopyCluster) -> None:
    copy_cluster(tmp_path / "data" / "postgres")
    async with (
        running_stack(tmp_path / "data", commands=STAND_INS, postgres_settings=FAST) as up,
        await psycopg.AsyncConnection.connect(up.postgres) as connection,
    ):
        await connection.execute("CREATE TABLE kept ()")
    async with (
        running_stack(tmp_path / "data", commands=STAND_INS, postgres_settings=FAST) as up,
        await psycopg.AsyncConnection.connect(up.postgres) as connection,
    ):
        await connection.execute("SELECT FROM kept")


@pytest.mark.parametrize(
    ("commands", "cause"),
    [
        (Commands(python("import sys; sys.exit('error: no way')")), "the migration failed: error: no way"),
        (
            Commands(python(MIGRATE), python("import sys; sys.exit('error: no way')")),
            "bridge did not start: error: no way",
        ),
        (
            Commands(python(MIGRATE), python(PART, "bridge"), python(PART, "other")),
            "server did not tell its address",
        ),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, copy_cluster: CopyCluster, commands: Commands, cause: str
) -> None:
    data = tmp_path / "data"
    copy_cluster(data / "postgres")
    with pytest.raises(StackError, match=cause):
        async with running_stack(data, commands=commands, postgres_settings=FAST):
            pass
    assert DataLock.holder(data) is None
    assert not (data / "stack.json").exists()
    assert not (data / "postgres" / "cluster" / "postmaster.pid").exists()


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be made: Not a directory") as raised:
        async with running_stack(tmp_path / "file" / "data", commands=STAND_INS):
            pass
    assert raised.value.mend == "choose another one with --data"


async def test_the_bridge_is_supervised_too(tmp_path: Path, copy_cluster: CopyCluster) -> None:
    copy_cluster(tmp_path / "postgres")
    notices: list[Notice] = []
    async with running_stack(
        tmp_path, commands=STAND_INS, on_notice=notices.append, postgres_settings=FAST
    ) as up:
        await up.supervisor.stop("bridge")
        assert notices == []
        await up.supervisor.start("bridge")
        await eventually(lambda: [notice.name for notice in notices] == ["bridge"])
