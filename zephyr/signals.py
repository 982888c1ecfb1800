"""SIGINT and SIGTERM as an orderly end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def on_stop(stop: Callable[[], object]) -> None:
    """Calls ``stop`` at the first SIGINT or SIGTERM; the second ends the process as usual."""
    loop = asyncio.get_running_loop()

    def handle() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
