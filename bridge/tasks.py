"""Coroutines that run side by side, each owned by whoever waits here for all of them.

Not an ``asyncio.TaskGroup``: under Python 3.11 one that failed leaves its parent marked as
cancelled, and the next term would take that for an order to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bridge.errors import BridgeError, Unreachable

Work = Coroutine[Any, Any, None]


async def run_until_one_ends(*works: Work) -> None:
    """Runs all until one of them ends, and ends the others.

    Of several errors the one is raised that is mended least by trying again.
    """
    errors = await _run(works, asyncio.FIRST_COMPLETED)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Unreachable) + isinstance(error, BridgeError))


async def run_to_the_end(*works: Work) -> None:
    """Runs all to their end; the first that fails ends the others."""
    errors = await _run(works, asyncio.FIRST_EXCEPTION)
    if errors:
        raise errors[0]


async def _run(works: tuple[Work, ...], until: str) -> list[Exception]:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=until)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [error for error in ended if isinstance(error, Exception)]
