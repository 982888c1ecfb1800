"""``zephyr up`` and ``zephyr down`` as people run them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.servers import CopyCluster
from zephyr.stack.lock import DataLock
from zephyr.stack.running import package_environment

pytestmark = pytest.mark.timeout(180)

ZEPHYR = [sys.executable, "-m", "zephyr"]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder on which nothing runs any more when the test is over."""
    folder = tmp_path / "data"
    yield folder
    pid = DataLock.holder(folder)
    if pid:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def used_data(data: Path, copy_cluster: CopyCluster) -> Path:
    """The same with a database, as if it had been up before."""
    copy_cluster(data / "postgres")
    return data


def zephyr(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ZEPHYR, *map(str, words)],
        env=package_environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def foreground(data: Path, file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ZEPHYR, "up", "--data", str(data), "--json", str(file)],
        env=package_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def up_detached(data: Path) -> dict[str, Any]:
    file = data.with_suffix(".json")
    ended = zephyr("up", "--detach", "--data", data, "--json", file)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(file.read_text())
    assert told["grpc"] in ended.stderr
    return told


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0


def told_with_another_process(file: Path, name: str, pid: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(file.read_text())
    return told if told["pids"][name] != pid else {}


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_detach_restart_of_parts_and_down(data: Path) -> None:
    told = up_detached(data)
    assert set(told) == {"grpc", "nats", "postgres", "redis", "data", "pids"}
    assert set(told["pids"]) == {"bridge", "server", "nats", "postgres", "redis"}
    assert answers(told["grpc"])
    with psycopg.connect(told["postgres"]) as connection:
        connection.execute("INSERT INTO workspaces (slug, name) VALUES ('kept', 'Kept')")

    again = zephyr("up", "--detach", "--data", data)
    assert again.returncode == 2
    assert f"a stack already runs on {data}" in again.stderr
    assert len(again.stderr.splitlines()) == 1

    down = zephyr("down", "--data", data)
    assert down.returncode == 0, down.stderr
    assert DataLock.holder(data) is None
    assert all(is_gone(pid) for pid in told["pids"].values())
    assert not data.with_suffix(".json").exists()

    nothing = zephyr("down", "--data", data)
    assert nothing.returncode == 0
    assert f"nothing runs on {data}" in nothing.stderr

    told = up_detached(data)
    with psycopg.connect(told["postgres"]) as connection:
        assert connection.execute("SELECT slug FROM workspaces").fetchall() == [("kept",)]
    assert zephyr("down", "--data", data).returncode == 0


async def test_parts_that_are_killed_come_back_where_they_were(used_data: Path) -> None:
    told = up_detached(used_data)
    file = used_data.with_suffix(".json")
    for name, pid in told["pids"].items():
        os.kill(pid, signal.SIGKILL)
        others = partial(told_with_another_process, file, name, pid)
        now = await eventually(others, timeout=30, what=f"a new process of {name} in the file")
        assert {**now, "pids": None} == {**told, "pids": None}
    await eventually(lambda: answers(told["grpc"]), timeout=30)
    assert zephyr("down", "--data", used_data).returncode == 0


async def test_nothing_outlives_a_supervisor_that_is_killed(used_data: Path) -> None:
    told = up_detached(used_data)
    pid = DataLock.holder(used_data)
    assert pid
    os.kill(pid, signal.SIGKILL)
    for name, part in told["pids"].items():
        await eventually(partial(is_gone, part), what=f"the end of {name}")
    told = up_detached(used_data)
    assert answers(told["grpc"])
    assert zephyr("down", "--data", used_data).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_in_the_foreground_a_signal_ends_all(used_data: Path, number: signal.Signals) -> None:
    file = used_data.with_suffix(".json")
    with foreground(used_data, file) as process:
        try:
            await eventually(lambda: file.exists() or process.poll() is not None, timeout=60)
            assert process.poll() is None
            told = json.loads(file.read_text())
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "press Ctrl-C to stop" in said
    assert "Traceback" not in said
    assert all(is_gone(pid) for pid in told["pids"].values())


def test_the_folder_is_under_the_working_directory(tmp_path: Path) -> None:
    nothing = zephyr("down", cwd=tmp_path)
    assert nothing.returncode == 0
    assert f"nothing runs on {tmp_path / '.zephyr'}" in nothing.stderr


def test_a_part_that_cannot_start_is_one_line_with_its_cause(used_data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        failed = zephyr("up", "--detach", "--data", used_data, "--listen", address)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert failed.stderr.startswith("error: server did not start: ")
    assert DataLock.holder(used_data) is None


def test_a_json_file_in_no_folder_is_a_wrong_setting(data: Path, tmp_path: Path) -> None:
    failed = zephyr("up", "--data", data, "--json", tmp_path / "none" / "up.json")
    assert failed.returncode == 2
    assert "there is no folder" in failed.stderr
