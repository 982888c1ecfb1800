"""Reads that wait for their turn together: who asks for the same before it has begun shares the answer.

An answer may be shared only by those who asked before the read began: whatever they must see was
there by then. The first of them reads for all; when it is cancelled, another one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from realtime.errors import RealtimeError

T = TypeVar("T")


class SharedReads:
    """So many reads at once, ``at_once`` of them; the others wait. A read begins ``apart_s`` after the one before
    at the earliest, so that more of those who come in a crowd share one."""

    def __init__(self, at_once: int, apart_s: float = 0.0) -> None:
        self._apart_s = apart_s
        self._begun_at = -apart_s
        self._turns = asyncio.Semaphore(at_once)
        self._waiting: dict[Hashable, asyncio.Future[tuple[Any] | None]] = {}

    async def ask(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read`` gives, begun after this was called. Equal keys mean the same read.

        Raises:
            RealtimeError: the read did, to all who share it.
        """
        while True:
            waiting = self._waiting.get(key)
            if waiting is None:
                return await self._lead(key, read)
            answer = await asyncio.shield(waiting)
            if answer is not None:
                result: T = answer[0]
                return result

    async def _lead(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        future: asyncio.Future[tuple[Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        answer: tuple[T] | None = None
        try:
            async with self._turns:
                await self._keep_apart()
                del self._waiting[key]  # who comes now must see what this read may not
                answer = (await read(),)
                return answer[0]
        except RealtimeError as exc:
            future.set_exception(exc)
            future.exception()  # there may be nobody else who listens
            raise
        finally:
            if self._waiting.get(key) is future:
                del self._waiting[key]
            if not future.done():
                future.set_result(answer)  # None: this one was cancelled, and another one reads

    async def _keep_apart(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = self._begun_at + self._apart_s - loop.time()
        if self._apart_s and wait_s > 0:
            await asyncio.sleep(wait_s)
        self._begun_at = loop.time()
