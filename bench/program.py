"""A program of the harness, as a process of its own: it is told lines and says lines, each one JSON value."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from zephyr.stack.running import package_environment

_LINE_BYTES = 64 * 1024 * 1024
HEARD_TIMEOUT_S = 600.0


class Program:
    """A running program. What it says is kept by name, the last of each."""

    def __init__(self, module: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.module = module
        self.on_said: Callable[[str, Any], None] = lambda _name, _value: None
        self._process = process
        self._log = log
        self._said: dict[str, Any] = {}
        self._news = asyncio.Event()
        self._has_ended = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, value: object) -> None:
        """Writes it a line. One that has ended hears nothing."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def heard(self, name: str, timeout_s: float = HEARD_TIMEOUT_S) -> Any:
        """What it said under ``name``, once; waits for it.

        Raises:
            BenchError: it ended before, or says nothing for too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while name not in self._said:
                    if self._has_ended:
                        raise BenchError(
                            f"{self.module} ended: {self._cause()}", "see its log (--data keeps it)"
                        )
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as exc:
            raise BenchError(
                f"{self.module} did not say {name!r} within {timeout_s:g} s",
                "see the logs (--data keeps them)",
            ) from exc
        return self._said.pop(name)

    async def listen(self) -> None:
        """Reads what it says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            for name, value in json.loads(line).items():
                self._said[name] = value
                self.on_said(name, value)
            self._news.set()
        self._has_ended = True
        self._news.set()

    async def close(self) -> None:
        """Ends it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _cause(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@asynccontextmanager
async def running(module: str, spec: Mapping[str, Any], log: Path) -> AsyncIterator[Program]:
    """Runs ``python -m module SPEC`` (JSON) and ends it on leaving; what it complains of goes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as complaints:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, json.dumps(spec),
            env=package_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=_LINE_BYTES,
        )  # fmt: skip
    program = Program(module, process, log)
    listening = asyncio.create_task(program.listen())
    try:
        yield program
    finally:
        await program.close()
        await listening
