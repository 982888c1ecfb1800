"""A child process that never outlives us.

It leads a process group of its own, so that Ctrl-C in the terminal reaches us alone and we
decide the order of stopping; and the kernel sends it a signal when we die, even by SIGKILL
(Linux). The kernel means the *thread* that started it: start children from a thread that
lives as long as they shall, never from a worker thread. Its output goes to a bounded file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from zephyr.stack.log import LogFile

LAUNCH = Path(__file__).with_name("launch.py")
LOG_CHECK_S = 5.0
POLL_S = 0.05

# What to send, and how many seconds to wait for the end before the next; SIGKILL comes last.
StopSteps = Sequence[tuple[Signals, float]]
GRACEFUL: StopSteps = ((signal.SIGTERM, 10.0),)


@dataclass(frozen=True, slots=True)
class User:
    """Whom a child runs as; only root may choose another than itself."""

    uid: int
    gid: int


class ChildProcess:
    """One running child; made by ``spawn``."""

    def __init__(self, popen: subprocess.Popen[bytes], log: LogFile) -> None:
        self._popen = popen
        self.log = log
        self.pid = popen.pid

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        log: LogFile,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: User | None = None,
        death_signal: Signals = signal.SIGKILL,
    ) -> ChildProcess:
        """Starts ``argv``; ``death_signal`` is what it gets when this thread ends, on Linux.

        Entering ``cwd`` happens before the change of user, so that it may be a folder which
        that user could not find its way to.

        Raises:
            OSError: the process cannot be started.
        """
        launcher = [sys.executable, "-I", "-S", str(LAUNCH)]
        # Found here, not after the change of user, who may not enter all that is in PATH.
        program = shutil.which(argv[0]) or argv[0]
        uid, gid = (user.uid, user.gid) if user else (-1, -1)
        with log.open() as stream:
            popen = subprocess.Popen(
                [*launcher, str(os.getpid()), str(int(death_signal)), str(uid), str(gid), program, *argv[1:]],
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        return cls(popen, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Waits for its end and gives the exit code; meanwhile keeps its log within the limit."""
        while (code := self.exit_code) is None:
            await self._ended_within(LOG_CHECK_S)
            self.log.trim()
        return code

    async def stop(self, steps: StopSteps = GRACEFUL) -> int:
        """Asks it to end, step by step, then kills it. Cancelled, it kills it at once."""
        try:
            for number, seconds in steps:
                if self.exit_code is not None:
                    break
                self.send(number)
                try:
                    async with asyncio.timeout(seconds):
                        return await self.wait()
                except TimeoutError:
                    continue
        finally:
            code = self.kill()
        return code

    def send(self, number: Signals) -> None:
        """Sends a signal to it (not to its group); nothing happens when it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> int:
        """SIGKILL to its whole group, at once, and gives the exit code; fine when it has ended."""
        if self.exit_code is None:
            # It is not reaped yet, so its id cannot have been given to another group.
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._popen.kill()
        # SIGKILL cannot be refused, so this is short; not awaited, so that nothing interrupts it.
        return self._popen.wait()

    async def _ended_within(self, seconds: float) -> None:
        """Returns when it has ended, or after some seconds at the latest."""
        if sys.platform != "linux":
            await asyncio.sleep(min(seconds, POLL_S))
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        handle = os.pidfd_open(self.pid)
        loop.add_reader(handle, ended.set)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(handle)
            os.close(handle)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a server: ours without libpq's settings, which Postgres would take up too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | settings
