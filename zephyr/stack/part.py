"""A part of the stack that is a command of ours: bridge or server.

A part is ready when it has written its ready file, which holds its process id and what it
has to tell (the server its address). The address told first is asked for again at each later
start, through ZEPHYR_LISTEN, so that clients find it where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zephyr.stack.errors import StartFailed
from zephyr.stack.log import LogFile
from zephyr.stack.process import ChildProcess

READY_TIMEOUT_S = 60.0
PROBE_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """What to run. ``ready_file`` is where the command ``argv`` says that it is ready."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_file: Path
    log_file: Path
    ready_timeout_s: float = READY_TIMEOUT_S


@dataclass(slots=True)
class PartProcess:
    """A part that runs, or ran."""

    part: Part
    ready: Mapping[str, Any] = field(default_factory=dict)
    """What its ready file said last."""
    log: LogFile = field(init=False)
    _child: ChildProcess | None = None

    def __post_init__(self) -> None:
        self.log = LogFile(self.part.log_file)

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name

    @property
    def pid(self) -> int | None:
        """Its process id, also of one that has ended; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.exit_code is None

    async def start(self) -> None:
        """Starts it and returns once it is ready; does nothing when it runs.

        Raises:
            StartFailed: it ended or was not ready in time; its last log line is quoted.
        """
        if self.is_running:
            return
        try:
            child = self._spawn()
        except OSError as error:
            raise StartFailed(
                f"{self.name} could not be started: {error}",
                f"check the rights on {self.part.log_file.parent}",
            ) from error
        try:
            async with asyncio.timeout(self.part.ready_timeout_s):
                while (told := self._told_by(child.pid)) is None:
                    if child.exit_code is not None:
                        reason = self.log.cause() or f"exit code {child.exit_code}"
                        raise StartFailed(f"{self.name} did not start: {reason}", self._see_log())
                    await asyncio.sleep(PROBE_EVERY_S)
            self.ready = told
            self._child = child
        except TimeoutError as error:
            seconds = self.part.ready_timeout_s
            raise StartFailed(
                f"{self.name} was not ready within {seconds:.0f} s: {self.log.cause() or 'it said nothing'}",
                self._see_log(),
            ) from error
        finally:
            if self._child is not child:
                child.kill()

    async def stop(self) -> None:
        """Asks it to end; kills it when that takes too long."""
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """Ends it by SIGKILL, and returns when it is gone."""
        if self._child is not None:
            self._child.kill()

    async def wait(self) -> int:
        """Waits for the end of its process and gives the exit code, negative for a signal."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return await self._child.wait()

    def _spawn(self) -> ChildProcess:
        self.part.ready_file.parent.mkdir(parents=True, exist_ok=True)
        self.part.ready_file.unlink(missing_ok=True)
        env = dict(self.part.env)
        if "grpc" in self.ready:
            env["ZEPHYR_LISTEN"] = str(self.ready["grpc"])
        return ChildProcess.spawn(self.part.argv, self.log, env=env)

    def _told_by(self, pid: int) -> Mapping[str, Any] | None:
        try:
            told = json.loads(self.part.ready_file.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return told if isinstance(told, dict) and told.get("pid") == pid else None

    def _see_log(self) -> str:
        return f"see its log in {self.part.log_file}"
