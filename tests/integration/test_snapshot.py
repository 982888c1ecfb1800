"""A snapshot under writes: folded up to its end it is the state at its cursor, and the tail goes on there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from tests.fixtures.bridge import RunningBridge, running
from tests.fixtures.raw_stream import RawStream, raw_stream, snapshot
from tests.fixtures.realtime_server import serving
from tests.fixtures.snapshot_fold import fold_items, fold_stored
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_states import read_all


@dataclass
class Kit:
    """The whole path: Postgres, bridge, NATS, server, and a stream of it."""

    dsn: str
    bridge: RunningBridge
    address: str
    stream: RawStream

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@asynccontextmanager
async def opened(settings: BridgeSettings) -> AsyncIterator[Kit]:
    async with (
        running(settings) as bridge,
        serving(settings.nats_url, postgres_dsn=settings.postgres_dsn) as address,
        raw_stream(address) as stream,
    ):
        yield Kit(settings.postgres_dsn, bridge, address, stream)


@pytest.fixture
async def kit(bridge_settings: BridgeSettings) -> AsyncIterator[Kit]:
    async with opened(bridge_settings) as result:
        yield result


async def whole(stream: RawStream, name: str) -> None:
    """Reads until the snapshot is whole."""
    await stream.until(lambda: stream[name].said[-1:] in (["snapshot_end"], ["closed"]), 40)
    assert stream[name].said[-1] == "snapshot_end", stream[name].last


FILL = (
    "INSERT INTO workspaces (slug, name) SELECT 'w' || n, 'W' FROM generate_series(1, 4) n",
    "INSERT INTO users (email) SELECT 'u' || n FROM generate_series(1, 40) n",
    "INSERT INTO memberships (workspace_id, user_id) SELECT w.id, u.id FROM workspaces w, users u"
    " WHERE (hashtext(w.slug || u.email) & 3) = 0",
    "INSERT INTO notes (workspace_id, author_id, title, body, metadata) SELECT w.id, (SELECT id FROM users LIMIT 1),"
    """ 'n' || n, repeat('x', n), '{"a": 1, "b": "c", "d": null}' FROM workspaces w, generate_series(1, 500) n""",
)


async def test_a_snapshot_is_the_tables(kit: Kit, stream_reader: Reader) -> None:
    kit.execute(*FILL)
    await stream_reader.caught_up(kit.dsn)
    await kit.stream.open("a", start=snapshot())
    await whole(kit.stream, "a")
    account = kit.stream["a"]
    assert account.said[:2] == ["ready", "snapshot_page"]
    assert len(account.items) == 4 + 40 + 2000 + sum(i.event.type == "membership.read" for i in account.items)
    cursor = Cursor.decode(account.cursor)
    assert fold_items(account.items) == fold_stored(await read_all(stream_reader), cursor.sequence)
    kit.execute("UPDATE notes SET title = 'after'")
    await kit.stream.until(lambda: len(account.events) == 2000)
    assert account.said.count("caught_up") == 1
