"""Keeps the servers and the parts running.

One task a unit waits for the end of its process and starts it again, after a pause that
doubles while it keeps dying and is short again once it has run for a while. The supervisor
starts again; it does not decide who may stop: that is ``stop``, after which a unit stays down
until ``start``. Closing it ends the watching alone, the processes belong to who made them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from zephyr.stack.errors import StackError
from zephyr.stack.log import LogFile

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# Having run for this long, a unit counts as sound, and its next end as the first.
SOUND_AFTER_S = 20.0


class Unit(Protocol):
    """What can be kept running: a server or a part."""

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def log(self) -> LogFile: ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...
    async def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a unit, in one line for people."""

    name: str
    text: str


@dataclass(slots=True)
class _Kept:
    unit: Unit
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by whoever calls ``start`` or ``stop``, so that no pause outlasts that."""
    stopped_by_us: bool = False


class Supervisor:
    """Runs as an async context manager, over units that were started before.

    ``on_restart`` is called after a unit was started again (with a new process id),
    ``on_notice`` with what people may want to know; both return at once.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        on_restart: Callable[[], None] = lambda: None,
        on_notice: Callable[[Notice], None] = lambda _: None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._kept = {unit.name: _Kept(unit) for unit in units}
        self._on_restart = on_restart
        self._on_notice = on_notice
        self._first_pause_s = first_pause_s
        self._tasks: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Supervisor:
        await self._group.__aenter__()
        for name, kept in self._kept.items():
            kept.wanted.set()
            kept.running.set()
            self._tasks.append(self._group.create_task(self._keep(kept), name=f"keep {name}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        # Without the error of the body: the group would wrap it, and it is not of a task here.
        await self._group.__aexit__(None, None, None)

    @property
    def pids(self) -> dict[str, int]:
        """Name to process id, as they are now."""
        return {name: kept.unit.pid for name, kept in self._kept.items() if kept.unit.pid is not None}

    def unit(self, name: str) -> Unit:
        """The server or part of that name.

        Raises:
            KeyError: there is none.
        """
        return self._kept[name].unit

    async def kill(self, name: str) -> None:
        """SIGKILLs a unit; it will be started again (``start`` waits for that)."""
        self._kept[name].running.clear()
        await self._kept[name].unit.kill()

    async def stop(self, name: str) -> None:
        """Stops a unit gracefully; it stays down until ``start``."""
        kept = self._kept[name]
        kept.wanted.clear()
        kept.running.clear()
        kept.changed.set()
        kept.stopped_by_us = True
        await kept.unit.stop()

    async def start(self, name: str, timeout_s: float = 60.0) -> None:
        """Has a unit that was stopped or died started now, and returns when it is ready.

        Raises:
            TimeoutError: it was not ready in time.
        """
        kept = self._kept[name]
        kept.wanted.set()
        kept.changed.set()
        async with asyncio.timeout(timeout_s):
            await kept.running.wait()

    async def restart(self, name: str) -> None:
        """Stops a unit gracefully and starts it again, on the same port and data."""
        await self.stop(name)
        await self.start(name)

    async def _keep(self, kept: _Kept) -> None:
        unit, pause_s = kept.unit, self._first_pause_s
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            code = await unit.wait()
            kept.running.clear()
            if clock() - started >= SOUND_AFTER_S:
                pause_s = self._first_pause_s
            if not kept.stopped_by_us:
                pause_s = await self._pause(kept, pause_s, _ending(code, unit))
            pause_s = await self._start_again(kept, pause_s)

    async def _start_again(self, kept: _Kept, pause_s: float) -> float:
        """Tries until it runs, once it is wanted; gives the pause for its next end."""
        unit = kept.unit
        while True:
            await kept.wanted.wait()
            try:
                await unit.start()
            except (StackError, OSError) as error:
                pause_s = await self._pause(kept, pause_s, f"could not be started: {error}")
                continue
            kept.stopped_by_us = False
            if not kept.wanted.is_set():
                # Stopped while it was being started.
                await unit.stop()
                continue
            kept.running.set()
            self._on_restart()
            self._on_notice(Notice(unit.name, f"started again as process {unit.pid}"))
            return pause_s

    async def _pause(self, kept: _Kept, pause_s: float, why: str) -> float:
        """Waits before the next start, unless somebody wants it otherwise; gives the next pause."""
        if not kept.wanted.is_set():
            return self._first_pause_s
        self._on_notice(Notice(kept.unit.name, f"{why}; next start in {pause_s:.1f} s"))
        kept.changed.clear()
        try:
            async with asyncio.timeout(pause_s):
                await kept.changed.wait()
        except TimeoutError:
            return min(pause_s * 2, LONGEST_PAUSE_S)
        return self._first_pause_s


def _ending(code: int, unit: Unit) -> str:
    if code < 0:
        return f"was ended by signal {-code}"
    cause = unit.log.cause()
    return f"ended with exit code {code}" + (f" ({cause})" if cause else "")
