"""The tasks of one stream: each is there only while it has something to do, and none outlives the stream.

An idle stream has none. One that fails is a bug, or a connection that is gone: its owner is told, and
ends the stream with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


def _ignore(_: BaseException) -> None:
    return


class Errands:
    """``on_failure`` is called with what a task raised. ``close`` comes last."""

    __slots__ = ("_on_failure", "_tasks")

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] | None = None

    def create_task(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Begins a task."""
        task = asyncio.get_running_loop().create_task(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels what is under way, and waits for it."""
        while tasks := [task for task in self._tasks or () if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._on_failure = _ignore

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
            if not self._tasks:
                self._tasks = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._on_failure(failure)
