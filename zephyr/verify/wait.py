"""Waiting for what can be observed, with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

EVERY_S = 0.02


class NotWithin(Exception):
    """What was waited for did not come in time."""

    exit_code = 1
    mend = "run it again with the same --seed and with --data DIR, then read the logs there"

    def __init__(self, what: str, seconds: float, said: str = "") -> None:
        self.message = f"not within {seconds:g} s: {what}" + (f"; {said}" if said else "")
        super().__init__(self.message)


async def until(check: Callable[[], Awaitable[bool]], what: str, seconds: float = 30.0) -> None:
    """Asks again and again until it is so.

    Raises:
        NotWithin: it was not so in time.
    """
    try:
        async with asyncio.timeout(seconds):
            while not await check():  # noqa: ASYNC110 — what is waited for is in other processes
                await asyncio.sleep(EVERY_S)
    except TimeoutError as exc:
        raise NotWithin(what, seconds) from exc
