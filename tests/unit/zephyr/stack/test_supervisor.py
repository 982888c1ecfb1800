"""What dies is started again, what is stopped stays down."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fixtures.eventually import eventually
from zephyr.stack.errors import StartFailed
from zephyr.stack.part import Part, PartProcess
from zephyr.stack.supervisor import LONGEST_PAUSE_S, Notice, Supervisor

# Says that it is ready, as `zephyr serve` does; ends with 3 once the file `end` is there.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
ready, end = Path(sys.argv[1]), Path(sys.argv[2])
if end.exists():
    sys.exit("error: the file is there — remove it")
partial = ready.with_suffix(".partial")
partial.write_text(json.dumps({"pid": os.getpid(), "grpc": os.environ["ZEPHYR_LISTEN"].replace(":0", ":7")}))
partial.replace(ready)
while not end.exists():
    time.sleep(0.01)
print("error: it ended", flush=True)
sys.exit(3)
"""


def part(folder: Path, source: str = STAND_IN, timeout_s: float = 20.0) -> Part:
    return Part(
        name="stand-in",
        argv=[sys.executable, "-c", source, str(folder / "ready.json"), str(folder / "end")],
        env={"ZEPHYR_LISTEN": "127.0.0.1:0"},
        ready_file=folder / "ready.json",
        log_file=folder / "stand-in.log",
        ready_timeout_s=timeout_s,
    )


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[PartProcess]:
    process = PartProcess(part(folder))
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def test_a_part_is_ready_when_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text(json.dumps({"pid": 1, "grpc": "of a former run"}))
    async with started(tmp_path) as process:
        assert process.is_running
        assert process.ready == {"pid": process.pid, "grpc": "127.0.0.1:7"}
    assert not process.is_running


async def test_a_part_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "end").touch()
    with pytest.raises(StartFailed, match="stand-in did not start: error: the file is there — remove it"):
        await PartProcess(part(tmp_path)).start()


async def test_a_part_that_says_nothing_is_killed(tmp_path: Path) -> None:
    process = PartProcess(part(tmp_path, "import signal; signal.pause()", timeout_s=0.3))
    with pytest.raises(StartFailed, match=r"stand-in was not ready within 0 s: it said nothing"):
        await process.start()
    assert not process.is_running


async def test_starts_again_what_dies_at_the_same_address(tmp_path: Path) -> None:
    notices: list[Notice] = []
    restarts: list[int | None] = []
    async with (
        started(tmp_path) as process,
        Supervisor(
            [process],
            on_notice=notices.append,
            on_restart=lambda: restarts.append(process.pid),
            first_pause_s=0.01,
        ) as supervisor,
    ):
        pids = [process.pid]
        for _ in range(2):
            await supervisor.kill("stand-in")
            await supervisor.start("stand-in")
            pids.append(process.pid)
        assert process.ready["grpc"] == "127.0.0.1:7"
        assert supervisor.pids == {"stand-in": process.pid}
    assert len(set(pids)) == 3
    assert restarts == pids[1:]
    assert [notice.text.partition(";")[0] for notice in notices] == [
        "was ended by signal 9",
        f"started again as process {pids[1]}",
        "was ended by signal 9",
        f"started again as process {pids[2]}",
    ]
    assert not process.is_running


async def test_pauses_grow_while_it_cannot_be_started(tmp_path: Path) -> None:
    notices: list[str] = []
    async with (
        started(tmp_path) as process,
        Supervisor(
            [process], on_notice=lambda notice: notices.append(notice.text), first_pause_s=0.05
        ) as supervisor,
    ):
        (tmp_path / "end").touch()
        await eventually(lambda: len(notices) >= 3)
        (tmp_path / "end").unlink()
        await supervisor.start("stand-in")
    assert notices[0] == "ended with exit code 3 (error: it ended); next start in 0.1 s"
    failed = "could not be started: stand-in did not start: error: the file is there — remove it"
    assert notices[1:3] == [f"{failed}; next start in 0.1 s", f"{failed}; next start in 0.2 s"]
    assert LONGEST_PAUSE_S == 10


async def test_what_is_stopped_stays_down_until_it_is_started(tmp_path: Path) -> None:
    notices: list[Notice] = []
    async with (
        started(tmp_path) as process,
        Supervisor([process], on_notice=notices.append) as supervisor,
    ):
        first = process.pid
        await supervisor.stop("stand-in")
        assert not process.is_running
        assert notices == []
        await supervisor.start("stand-in")
        second = process.pid
        await supervisor.restart("stand-in")
        assert len({first, second, process.pid}) == 3
        assert [notice.text for notice in notices] == [
            f"started again as process {second}",
            f"started again as process {process.pid}",
        ]


async def test_an_error_of_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with started(tmp_path) as process, Supervisor([process]):
            raise ZeroDivisionError
