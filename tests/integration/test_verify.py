"""`zephyr verify faults` as a user runs it: what it tells, how it ends, and that nothing stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.eventually import eventually

COMMAND = (sys.executable, "-m", "zephyr", "verify", "faults")
KEYS = {"kills", "commits", "events", "lost", "duplicated", "out_of_order", "state_equal", "seed"}
pytestmark = pytest.mark.timeout(300)


def processes_in(folder: Path) -> list[int]:
    """Processes whose command names the folder, or that were started in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (
                str(folder).encode() in (entry / "cmdline").read_bytes()
                or (entry / "cwd").resolve().is_relative_to(folder)
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_run(tmp_path: Path) -> None:
    file, data = tmp_path / "out.json", tmp_path / "data"
    done = subprocess.run(
        [*COMMAND, "--seconds", "4", "--seed", "5", "--json", str(file), "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=140,
    )
    assert done.returncode == 0, done.stderr
    assert "lost 0 · duplicated 0 · out of order 0 · state equal · seed 5" in done.stdout
    told = json.loads(file.read_bytes())
    assert told.keys() >= KEYS
    assert (told["lost"], told["duplicated"], told["out_of_order"], told["unexpected"]) == (0, 0, 0, 0)
    assert told["state_equal"] is True
    assert told["events"] >= told["commits"] > 0
    assert sum(told["faults"].values()) > 0
    assert (data / "bridge" / "bridge.log").exists()
    assert processes_in(data) == []


async def test_ctrl_c_ends_all_that_it_started(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(  # noqa: ASYNC220 — it returns at once
        [*COMMAND, "--seconds", "600", "--data", str(data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        bridge = data / "bridge" / "bridge.log"
        await eventually(lambda: bridge.exists() and b"streaming" in bridge.read_bytes(), timeout=60)
        assert len(processes_in(data)) > 3
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.to_thread(process.communicate, timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said.decode()
    assert b"Traceback" not in said
    await eventually(lambda: not processes_in(data), what="nothing that it started runs")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--json", "/nowhere/out.json"), "there is no folder /nowhere for --json"),
        (("--data", "/proc"), "/proc is not an empty folder"),
    ],
)
def test_wrong_usage_is_one_line(words: tuple[str, ...], cause: str) -> None:
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 2
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1
