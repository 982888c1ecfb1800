"""Child processes: how they are started, stopped, and never outlive us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.eventually import eventually
from zephyr.stack.log import LogFile
from zephyr.stack.process import ChildProcess, User, environment

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""

# A supervisor in small: starts a child, tells its id, waits.
PARENT = """
import signal, sys
from pathlib import Path
from zephyr.stack.log import LogFile
from zephyr.stack.process import ChildProcess
child = ChildProcess.spawn(["sleep", "600"], LogFile(Path(sys.argv[1])))
print(child.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "child.log")


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


async def test_gives_exit_code_and_output(log: LogFile) -> None:
    source = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    child = ChildProcess.spawn(python(source), log, env=environment(PYTHONUNBUFFERED="1"))
    assert await child.wait() == 7
    assert log.tail() == ["out", "err"]
    assert await child.stop() == 7
    assert child.kill() == 7


async def test_stop_asks_first(log: LogFile) -> None:
    child = ChildProcess.spawn(["sleep", "600"], log)
    await eventually(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
    assert await child.stop() == -signal.SIGTERM


async def test_stop_kills_who_does_not_end_in_time(log: LogFile) -> None:
    child = ChildProcess.spawn(python(STUBBORN), log)
    await eventually(lambda: log.tail() == ["ready"])
    assert await child.stop(((signal.SIGTERM, 0.05),)) == -signal.SIGKILL


async def test_a_stop_that_is_cancelled_kills_at_once(log: LogFile) -> None:
    child = ChildProcess.spawn(python(STUBBORN), log)
    await eventually(lambda: log.tail() == ["ready"])
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert child.exit_code == -signal.SIGKILL


async def test_kill_takes_the_whole_group(log: LogFile) -> None:
    child = ChildProcess.spawn(["sh", "-c", "sleep 600 & echo $!; wait"], log)
    grandchild = int((await eventually(log.tail))[0])
    assert os.getpgid(grandchild) == child.pid == os.getpgid(child.pid)
    child.kill()
    await eventually(lambda: has_ended(grandchild))


async def test_a_program_that_is_not_there_says_so(log: LogFile) -> None:
    child = ChildProcess.spawn(["/no/such/program"], log)
    assert await child.wait() == 1
    assert log.cause() == "error: cannot execute /no/such/program: No such file or directory"


async def test_signals_are_as_a_program_expects_them(log: LogFile) -> None:
    child = ChildProcess.spawn(["grep", "^SigIgn", "/proc/self/status"], log)
    await child.wait()
    ignored = int(log.tail()[0].split()[1], 16)
    # Those that Python ignores; what whoever started us ignores beside them is not ours.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (number - 1) & 1, number


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
async def test_root_starts_another_user_in_a_folder_it_could_not_reach(tmp_path: Path, log: LogFile) -> None:
    folder = tmp_path / "closed" / "own"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    os.chown(folder, 65534, 65534)
    command = "id -u; id -g; id -G; touch here"
    child = ChildProcess.spawn(["sh", "-c", command], log, cwd=folder, user=User(65534, 65534))
    assert await child.wait() == 0, log.tail()
    assert log.tail() == ["65534"] * 3
    assert (folder / "here").stat().st_uid == 65534


@pytest.fixture
def parent(log: LogFile) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*python(PARENT), str(log.path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
async def test_no_child_outlives_a_killed_parent(parent: subprocess.Popen[bytes]) -> None:
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    await eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    parent.kill()
    await eventually(lambda: has_ended(child))


def has_ended(pid: int) -> bool:
    """Whether it is gone, or a zombie that nobody reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
