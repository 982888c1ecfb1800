"""Postgres, NATS and bridge of one case, on folders of their own.

The bridge runs once, so that stream, slot and publication are there, and is stopped. That
state is kept: each round gets a copy of the broker's files and a copy of the slot, so that
every round, and its ceiling, reads the same WAL into the same stream.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors

from bench.database import Session, session
from bench.errors import BenchError
from bench.load import make_workspace
from bench.stream import StreamWatch
from bench.usage import peak_memory_bytes
from zephyr.migrations.runner import migrate
from zephyr.stack.nats import SYNC_INTERVAL_S, NatsServer
from zephyr.stack.part import READY_TIMEOUT_S, Part, PartProcess
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.running import ZEPHYR, package_environment

STREAM = "ZEPHYR"
SLOT = "zephyr"
PUBLICATION = "zephyr"
HOLD_BACK_S = 2 * SYNC_INTERVAL_S
_LONG_S = 3600.0


@dataclass(frozen=True, slots=True)
class Round:
    """The broker of one round, and the bridge, which is not started yet."""

    nats: NatsServer
    stream: StreamWatch
    bridge: PartProcess
    slot: str


class Rig:
    """One Postgres for all rounds of a case, and the broker's files as they were before the load."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = PostgresServer(folder / "postgres")
        self.baseline_events = 0
        self._pristine = folder / "pristine"
        self._rounds = 0

    @property
    def dsn(self) -> str:
        """The case's database."""
        return self.postgres.dsn

    async def prepare(self) -> None:
        """Starts Postgres and makes the tables."""
        await self.postgres.start()
        await asyncio.to_thread(migrate, self.dsn)

    async def run_first(self) -> None:
        """Lets the bridge make stream, slot and publication, and keeps the broker's files."""
        async with self._running(self._pristine, SLOT) as first:
            await first.bridge.start()
            await first.stream.until_marked(await make_workspace(self.dsn), "the first start of the bridge")
            await first.bridge.stop()
            self.baseline_events = await first.stream.events()

    async def settings(self) -> dict[str, object]:
        """What was set, as the servers say it: a part of each case's parameters."""
        async with session(self.dsn) as connection:
            shown: dict[str, object] = {}
            for name in ("fsync", "synchronous_commit", "wal_sync_method"):
                cursor = await connection.execute("SELECT current_setting(%s)", (name,))
                row = await cursor.fetchone()
                shown[f"postgres_{name}"] = str(row[0]) if row else ""
        return shown | {
            "nats_storage": "file",
            "nats_sync_interval_s": SYNC_INTERVAL_S,
            "bridge_hold_back_s": HOLD_BACK_S,
            "replica_identity": "full",
        }

    @asynccontextmanager
    async def copied_slot(self) -> AsyncIterator[str]:
        """A slot that stands where the first one stands, dropped at the end."""
        self._rounds += 1
        name = f"{SLOT}_{self._rounds}"
        async with session(self.dsn) as connection:
            await connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", (SLOT, name))
            try:
                yield name
            finally:
                await _drop_slot(connection, name)

    @asynccontextmanager
    async def round(self) -> AsyncIterator[Round]:
        """A broker with the stream as it was before the load, and a bridge that goes on from there."""
        async with self.copied_slot() as slot:
            folder = self.folder / slot
            shutil.copytree(self._pristine / "nats" / "jetstream", folder / "nats" / "jetstream")
            try:
                async with self._running(folder, slot) as running:
                    yield running
            finally:
                shutil.rmtree(folder / "nats" / "jetstream", ignore_errors=True)

    @asynccontextmanager
    async def empty_round(self) -> AsyncIterator[Round]:
        """An empty broker and no slot: the bridge begins a new history, however long that takes."""
        self._rounds += 1
        slot = f"{SLOT}_{self._rounds}"
        folder = self.folder / slot
        try:
            async with self._running(folder, slot, _LONG_S) as running:
                yield running
        finally:
            shutil.rmtree(folder / "nats" / "jetstream", ignore_errors=True)
            async with session(self.dsn) as connection:
                await _drop_slot(connection, slot)

    async def peak_memory_bytes(self, running: Round) -> dict[str, int]:
        """The most that each process had; of Postgres the one that serves the slot."""
        pids = {
            "bridge": running.bridge.pid,
            "nats": running.nats.pid,
            "postgres": await self._walsender_pid(running.slot),
        }
        return {name: peak_memory_bytes(pid) for name, pid in pids.items() if pid is not None}

    async def _walsender_pid(self, slot: str) -> int | None:
        query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
        async with session(self.dsn) as connection:
            row = await (await connection.execute(query, (slot,))).fetchone()
            return int(str(row[0])) if row and row[0] is not None else None

    async def close(self) -> None:
        """Stops Postgres."""
        await self.postgres.stop()

    @asynccontextmanager
    async def _running(
        self, folder: Path, slot: str, ready_timeout_s: float = READY_TIMEOUT_S
    ) -> AsyncIterator[Round]:
        async with AsyncExitStack() as closing:
            broker = NatsServer(folder / "nats")
            closing.push_async_callback(broker.stop)
            await broker.start()
            try:
                connection = await nats.connect(broker.url, allow_reconnect=False)
            except (nats.errors.Error, OSError) as exc:
                raise BenchError(
                    f"NATS went away: {exc or type(exc).__name__}", f"see its log in {broker.log.path}"
                ) from exc
            closing.push_async_callback(connection.close)
            bridge = PartProcess(self._bridge(folder / "bridge", broker.url, slot, ready_timeout_s))
            closing.push_async_callback(bridge.stop)
            yield Round(broker, StreamWatch(connection, STREAM, bridge), bridge, slot)

    def _bridge(self, folder: Path, nats_url: str, slot: str, ready_timeout_s: float) -> Part:
        # What is set in our environment would make another bridge of it.
        kept = {
            name: value for name, value in package_environment().items() if not name.startswith("ZEPHYR_")
        }
        ready_file = folder / "ready.json"
        return Part(
            name="bridge",
            argv=[*ZEPHYR, "bridge", "run", "--ready-file", str(ready_file)],
            env=kept
            | {
                "ZEPHYR_NATS_URL": nats_url,
                "ZEPHYR_POSTGRES_DSN": self.dsn,
                "ZEPHYR_STREAM": STREAM,
                "ZEPHYR_SLOT": slot,
                "ZEPHYR_PUBLICATION": PUBLICATION,
                "ZEPHYR_BRIDGE_HOLD_BACK_S": str(HOLD_BACK_S),
            },
            ready_file=ready_file,
            log_file=folder / "bridge.log",
            ready_timeout_s=ready_timeout_s,
        )


@asynccontextmanager
async def open_rig(folder: Path, *, first_run: bool = True) -> AsyncIterator[Rig]:
    """A rig on an empty folder, ready to be loaded. ``first_run`` is for rounds that copy its slot."""
    rig = Rig(folder)
    try:
        await rig.prepare()
        if first_run:
            await rig.run_first()
        yield rig
    finally:
        await rig.close()


async def _drop_slot(connection: Session, name: str) -> None:
    # Who read it may have left a moment ago: the server lets go of it in its own time.
    await connection.execute(
        "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots"
        " WHERE slot_name = %s AND active_pid IS NOT NULL",
        (name,),
    )
    await connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
    )
