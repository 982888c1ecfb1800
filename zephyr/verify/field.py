"""Where the faults happen: servers, proxy, bridge, writers and oracle, all of one run's own.

Everything is opened by one context and closed in the reverse order, whatever state a fault
left it in: what is frozen is thawed or killed first. The bridge reaches NATS through the
proxy; the oracle and the faults reach it directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
import psycopg
from nats.aio.client import Client
from psycopg import AsyncConnection

from zephyr.migrations.runner import migrate
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.running import package_environment
from zephyr.verify.bridge import Bridge
from zephyr.verify.proxy import Mode, Proxy
from zephyr.verify.stored import marked_lsn
from zephyr.verify.truth import Truth
from zephyr.verify.verdict import Verdict, judge
from zephyr.verify.wait import until
from zephyr.verify.writer import WORKSPACES, Load, Writer

SENDER_TIMEOUT_S = 2.0
HOLD_BACK_S = 3.0
"""Above NATS' sync interval, which is a second; see ``zephyr.stack.nats``."""
SLOT = "zephyr"
CAUGHT_UP_S = 90.0
AHEAD_BYTES = 8 << 20
"""WAL that the bridge has yet to read; writers slow down above it."""


@dataclass(slots=True)
class Field:
    """What a fault can reach."""

    folder: Path
    nats: NatsServer
    postgres: PostgresServer
    proxy: Proxy
    bridge: Bridge
    spare: Bridge
    """A second bridge on the same slot; it runs only inside a fault."""
    truth: Truth
    load: Load = field(default_factory=Load)
    kills: int = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection to NATS that goes round the proxy."""
        client = await nats.connect(self.nats.url, max_reconnect_attempts=-1, error_cb=_quiet)
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[AsyncConnection]:
        """A session with Postgres, each statement by itself."""
        async with await AsyncConnection.connect(
            self.postgres.dsn, autocommit=True, connect_timeout=5
        ) as connection:
            yield connection

    async def more(self, commits: int, seconds: float = 20.0) -> None:
        """Waits until the writers have committed so many more."""
        target = self.load.commits + commits

        async def has() -> bool:
            return self.load.commits >= target

        await until(has, "the writers go on", seconds)

    def kill_bridge(self) -> None:
        self.bridge.kill()
        self.kills += 1

    async def read_truth(self) -> None:
        """Takes what was committed since it was called last, so that Postgres need not keep it."""
        with suppress(psycopg.OperationalError):
            async with self.database() as connection:
                await self.truth.read(connection)

    async def throttle(self) -> None:
        """Has the writers write less while the bridge is far behind, so that a run ends in bounded time."""
        with suppress(psycopg.OperationalError, OSError, nats.errors.Error, nats.js.errors.Error):
            async with asyncio.timeout(1), self.client() as client, self.database() as connection:
                lag_bytes = await _wal_lsn(connection) - await marked_lsn(client)
                self.load.is_ahead = lag_bytes > AHEAD_BYTES

    @asynccontextmanager
    async def writing(self, seed: int, writers: int = 4) -> AsyncIterator[None]:
        """So many writers commit while the context is open; their own errors come out of it."""
        self.load.stops = False
        tasks = [
            asyncio.ensure_future(Writer(self.postgres.dsn, seed * 1000 + number, self.load).run())
            for number in range(writers)
        ]
        try:
            yield
        finally:
            self.load.stops = True
            await asyncio.gather(*tasks)

    async def verdict(self) -> Verdict:
        """Waits until the bridge has stored all that is committed, and judges; writers have to rest.

        Raises:
            BridgeEnded, NotWithin: it does not get there.
        """
        await self.caught_up()
        return await self.judged()

    async def judged(self) -> Verdict:
        """Holds the stream, as it is, against all that is committed."""
        async with self.client() as client, self.database() as connection:
            await self.truth.read(connection)
            return await judge(self.truth, client, connection)

    async def caught_up(self, seconds: float = CAUGHT_UP_S) -> None:
        """Waits until the bridge has stored all that is committed now, with nothing in its way.

        Raises:
            BridgeEnded, NotWithin: it does not get there.
        """
        self.proxy.set(Mode.PASS)
        await self.bridge.start()
        async with self.client() as client, self.database() as connection:
            await connection.execute("SELECT pg_logical_emit_message(true, 'verify', '')")
            target = await _wal_lsn(connection)

            async def is_there() -> bool:
                await self.bridge.streams()
                return await marked_lsn(client) >= target

            await until(is_there, "the stream holds all that is committed", seconds)


@asynccontextmanager
async def open_field(
    folder: Path, postgres_settings: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[Field]:
    """Starts everything in ``folder``; ``settings`` are more of the bridge's variables.

    Raises:
        StackError: a server cannot be started.
        BridgeEnded, NotWithin: the bridge does not stream.
    """
    postgres = PostgresServer(
        folder / "postgres",
        {"wal_sender_timeout": f"{SENDER_TIMEOUT_S:.0f}s", **(postgres_settings or {})},
    )
    nats_server = NatsServer(folder / "nats")
    proxy = Proxy(lambda: nats_server.address)
    bridges: list[Bridge] = []
    try:
        await asyncio.gather(postgres.start(), nats_server.start())
        await asyncio.to_thread(migrate, postgres.dsn)
        async with proxy:
            environment = package_environment() | {
                "ZEPHYR_NATS_URL": proxy.url,
                "ZEPHYR_POSTGRES_DSN": postgres.dsn,
                "ZEPHYR_SLOT": SLOT,
                "ZEPHYR_BRIDGE_HOLD_BACK_S": str(HOLD_BACK_S),
                "ZEPHYR_BRIDGE_MARK_INTERVAL_S": "0.2",
                "ZEPHYR_BRIDGE_PUBLISH_TIMEOUT_S": "2",
                **settings,
            }
            bridges += [Bridge(folder / name, environment) for name in ("bridge", "spare")]
            opened = Field(folder, nats_server, postgres, proxy, bridges[0], bridges[1], Truth())
            await opened.bridge.start()
            async with opened.database() as connection:
                await opened.truth.open(connection)
                for workspace in WORKSPACES:
                    await connection.execute(
                        "INSERT INTO workspaces (id, slug, name) VALUES (%s, %s, 'w')", (workspace, workspace)
                    )
            try:
                yield opened
            finally:
                # While NATS can still be reached: else it would wait for it.
                for bridge in bridges:
                    await bridge.stop()
    finally:
        for bridge in bridges:
            bridge.kill()
        # They may be frozen, and nothing of them is needed any more.
        await nats_server.kill()
        await postgres.stop()


async def _wal_lsn(connection: AsyncConnection) -> int:
    cursor = await connection.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _quiet(_: Exception) -> None:
    """Servers go away here, and that is no news."""
