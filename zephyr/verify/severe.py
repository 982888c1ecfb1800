"""What happens to the servers themselves. Each leaves the bridge streaming again."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from zephyr.stack.nats import SYNC_INTERVAL_S
from zephyr.verify.field import SENDER_TIMEOUT_S, Field


async def broker_killed(field: Field, chance: random.Random) -> None:
    """SIGKILL of NATS; it starts again on what it had written."""
    await field.more(chance.randint(1, 20))
    term = field.bridge.term
    await field.nats.kill()
    field.kills += 1
    await field.more(chance.randint(0, 10))
    await field.nats.start()
    await field.bridge.streams(term)


async def broker_forgets(field: Field, chance: random.Random) -> None:
    """NATS loses power: what it acknowledged and had not synced is gone.

    Its folder is copied while it stands still, and put back after SIGKILL less than a sync
    interval later. The bridge has held its slot back for longer, and sends all of it again.
    """
    store, copy = field.nats.data / "jetstream", field.folder / "nats-before"
    shutil.rmtree(copy, ignore_errors=True)
    await field.more(chance.randint(1, 10))
    term = field.bridge.term
    loop = asyncio.get_running_loop()
    with _frozen(field.nats.pid):
        # Only so long ago may the broker have synced last; the copy itself takes part of it.
        copied = loop.time()
        await asyncio.to_thread(shutil.copytree, store, copy)
    await asyncio.sleep(max(0.0, copied + SYNC_INTERVAL_S * chance.uniform(0.3, 0.9) - loop.time()))
    await field.nats.kill()
    field.kills += 1
    shutil.rmtree(store)
    copy.rename(store)
    await field.nats.start()
    await field.bridge.streams(term)


async def postgres_stopped(field: Field, chance: random.Random) -> None:
    """Immediate stop: no checkpoint, and the slot falls back to what was written of it last."""
    await field.more(chance.randint(1, 20))
    term, pid = field.bridge.term, field.postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    field.kills += 1
    await field.postgres.wait()
    await field.postgres.start()
    await field.bridge.streams(term)
    await field.more(1)


async def broker_stalled(field: Field, chance: random.Random) -> None:
    """NATS stands still for longer than wal_sender_timeout, and than an acknowledgement is waited for."""
    stall_s = SENDER_TIMEOUT_S * chance.uniform(1.2, 1.6)
    with _frozen(field.nats.pid):
        await asyncio.sleep(stall_s)
    await field.bridge.streams()
    await field.more(chance.randint(1, 5))


@contextmanager
def _frozen(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
