"""``zephyr down``: stops the stack that ``zephyr up`` runs on a data folder.

The folder's lock says who runs it and, by being free again, that everything is gone: it is
the last thing that ``up`` lets go.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from zephyr.commands.up import DEFAULT_DATA, DataOption
from zephyr.console import CommandError, console, run
from zephyr.stack.lock import DataLock

DOWN_TIMEOUT_S = 90.0
POLL_S = 0.05


def down(data: DataOption = DEFAULT_DATA) -> None:
    """Stops what `zephyr up` runs on the data folder, and returns when all of it is gone."""
    data = data.absolute()
    if DataLock.holder(data) is None:
        console.print(f"nothing runs on {data}")
        return
    run(_stop(data))
    console.print(f"stopped; the data stay in {data}")


async def _stop(data: Path) -> None:
    asked: set[int] = set()
    try:
        async with asyncio.timeout(DOWN_TIMEOUT_S):
            while (pid := DataLock.holder(data)) is not None:
                # 0 is a stack that has taken the lock and is about to sign it.
                if pid and pid not in asked:
                    _ask_to_end(pid)
                    asked.add(pid)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        pids = ", ".join(map(str, asked)) or "unknown"
        raise CommandError(
            f"the stack on {data} did not end within {DOWN_TIMEOUT_S:.0f} s (process {pids})",
            "look at its logs there; SIGKILL ends it and all its parts",
        ) from None


def _ask_to_end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended by itself just now
    except PermissionError:
        raise CommandError(
            f"process {pid} belongs to another user", "run `zephyr down` as the user who ran `zephyr up`"
        ) from None
