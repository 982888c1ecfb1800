"""The demo for real: the whole stack, real git, and the command as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.fixtures.eventually import eventually
from tests.fixtures.servers import CopyCluster
from zephyr.demo.expected import Expected
from zephyr.demo.history import History, ShippedHistory, choose_history
from zephyr.demo.replay import Progress
from zephyr.demo.run import Addresses, Options, run_demo
from zephyr.demo.subscribers import Subscribers
from zephyr.demo.view import View
from zephyr.stack import RunningStack, running_stack

LINE = re.compile(
    r"commits (\d+) · events (\d+) · delivered (\d+) · lost 0 · duplicated 0 · out of order 0"
    r" · p50 \d+\.\d ms · p99 \d+\.\d ms"
)
DEMO = (sys.executable, "-m", "zephyr", "demo")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stack(tmp_path: Path, copy_cluster: CopyCluster) -> AsyncIterator[RunningStack]:
    copy_cluster(tmp_path / "data" / "postgres")
    async with running_stack(tmp_path / "data", listen="127.0.0.1:0") as up:
        yield up


def addresses_of(stack: RunningStack) -> Addresses:
    return Addresses(stack.grpc, stack.nats, stack.postgres, stack.redis)


def quiet() -> View:
    return View(Console(quiet=True))


def repository(path: Path, commits: int) -> Path:
    """A repository with a file that each commit changes."""
    path.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    commands = b"".join(
        b"commit refs/heads/main\ncommitter Ada <ada@example.org> %d +0000\ndata 1\nm\n"
        b"M 100644 inline file-%d\ndata 4\n%04d\n" % (1_700_000_000 + number, number % 3, number)
        for number in range(commits)
    )
    for arguments, given in (
        (("init", "--quiet", "--initial-branch=main"), b""),
        (("fast-import", "--quiet"), commands),
    ):
        subprocess.run(("git", *arguments), cwd=path, env=environment, input=given, check=True)
    return path


def test_the_command(tmp_path: Path) -> None:
    repo, file = repository(tmp_path / "work", 30), tmp_path / "out.json"
    done = subprocess.run(
        (*DEMO, "--repo", str(repo), "--commits", "20", "--subscribers", "2", "--json", str(file)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = LINE.fullmatch(done.stdout.strip())
    assert found is not None, done.stdout
    # The workspace, the user and his membership come before the notes.
    assert found.groups() == ("20", "23", "46")
    result = json.loads(file.read_text())
    assert result | {"p50_ms": 0, "p99_ms": 0, "seconds": 0, "events_per_second": 0} == {
        "commits": 20,
        "events": 23,
        "subscribers": 2,
        "delivered": 46,
        "lost": 0,
        "duplicated": 0,
        "unexpected": 0,
        "out_of_order": 0,
        "state_equal": True,
        "cache_equal": True,
        "skipped": 0,
        "skipped_by_reason": {},
        "p50_ms": 0,
        "p99_ms": 0,
        "seconds": 0,
        "events_per_second": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--repo", "/nowhere"), "there is no folder /nowhere"),
        (("--stack", "/nowhere.json"), "/nowhere.json cannot be read"),
        (("--json", "/nowhere/out.json"), "there is no folder /nowhere for --json"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], cause: str) -> None:
    done = subprocess.run((*DEMO, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert cause in errors[0]
    assert "Traceback" not in done.stderr


async def test_twice_on_one_stack(stack: RunningStack) -> None:
    for _ in range(2):
        result = await run_demo(
            addresses_of(stack), ShippedHistory(None, ""), Options(subscribers=2), quiet()
        )
        assert result.holds, (result.line, result.remarks)
        assert result.counts.delivered == 2 * result.events


async def test_parts_that_are_killed_in_mid_replay(stack: RunningStack, tmp_path: Path) -> None:
    history = await choose_history(repository(tmp_path / "work", 400), None)
    view = _Reached()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(
            run_demo(addresses_of(stack), history, Options(subscribers=2, ahead=20), view)
        )
        for name in ("bridge", "server", "postgres", "nats"):
            await view.wait_for(view.commits + 40)
            await stack.supervisor.kill(name)
        result = await running
    assert result.holds, (result.line, result.remarks)
    assert result.commits == 400


async def test_what_never_arrives_is_counted_as_lost(stack: RunningStack) -> None:
    """The bridge is stopped for good: the run ends by itself, and says what is missing."""
    await stack.supervisor.stop("bridge")
    options = Options(subscribers=2, ahead=10, stall_s=2)
    result = await run_demo(addresses_of(stack), ShippedHistory(None, ""), options, quiet())
    assert not result.holds
    assert result.counts.lost == 2 * result.events > 0
    assert any("nothing moved for 2 s" in remark for remark in result.remarks)


class _Reached(View):
    """Shows nothing, and tells how far the replay is."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self._progress = Progress()

    @property
    def commits(self) -> int:
        return self._progress.commits

    async def wait_for(self, commits: int) -> None:
        await eventually(lambda: self.commits >= commits, timeout=60)

    async def show(
        self, history: History, progress: Progress, expected: Expected, subscribers: Subscribers
    ) -> None:
        self._progress = progress
