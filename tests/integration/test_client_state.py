"""Snapshots and lists through the client, on the whole path of real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1.event_pb2 import Event
from realtime.client import (
    Client,
    CreditWindow,
    ReceivedEvent,
    SignalSubscription,
    SnapshotBegins,
    SnapshotEnds,
    after,
    at_time,
    earliest,
    snapshot,
)
from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid
from tests.fixtures.bridge import running
from tests.fixtures.churn import churning
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.snapshot_fold import Folded, fold
from tests.fixtures.stream_writer import Change, StreamWriter, sequences
from zephyr.stack.nats import NatsServer

FILL = b"""
    INSERT INTO workspaces (slug, name) SELECT 'w' || n, 'n' FROM generate_series(1, 4) n;
    INSERT INTO users (email) SELECT 'u' || n FROM generate_series(1, 20) n;
    INSERT INTO notes (workspace_id, title, body)
        SELECT w.id, 'n' || n, repeat('x', 1000) FROM workspaces w, generate_series(1, 300) n;
"""
COUNT = 4 + 20 + 1200


class Replica:
    """Folds what a subscription says, by the rule of docs/client.md."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.begun: list[str] = []
        self.ended: list[SnapshotEnds] = []

    def take(self, item: object) -> None:
        if isinstance(item, SnapshotBegins):
            self.events.clear()
            self.begun.append(item.reason)
        elif isinstance(item, SnapshotEnds):
            self.ended.append(item)
        elif isinstance(item, ReceivedEvent):
            self.events.append(item.event)

    async def until_whole(self, subscription: SignalSubscription, count: int = 1) -> Folded:
        async with asyncio.timeout(40):
            async for item in subscription:
                self.take(item)
                if len(self.ended) == count:
                    break
        return fold(self.events)


def fill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FILL)


async def fold_up_to(client: Client, cursor: bytes) -> Folded:
    """The stream from earliest up to a cursor: what a snapshot at it must equal."""
    last = Cursor.decode(cursor).sequence
    events: list[Event] = []
    async with client.subscribe(start=earliest(), signals=True) as subscription, asyncio.timeout(40):
        async for item in subscription:
            if isinstance(item, ReceivedEvent):
                if item.sequence > last:
                    break
                events.append(item.event)
            elif subscription.is_caught_up:
                break
    return fold(events)


async def test_a_snapshot_under_writes_is_the_fold_of_the_stream(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url, postgres_dsn=dsn) as address,
        Client(address) as client,
        client.subscribe(start=snapshot(page_size=100), credit=CreditWindow(50, 100_000)) as subscription,
    ):
        fill(dsn)
        replica = Replica()
        async with churning(dsn, writers=2):
            folded = await replica.until_whole(subscription)
        assert folded
        assert replica.begun == [""]
        (end,) = replica.ended
        assert folded == await fold_up_to(client, end.cursor)
        # The tail follows on the same subscription.
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE workspaces SET name = 'the last'")
        async with asyncio.timeout(20):
            async for item in subscription:
                replica.take(item)
                if isinstance(item, ReceivedEvent) and item.event.workspace.name == "the last":
                    break
        assert subscription.cursor > end.cursor


async def test_a_server_that_is_killed_in_the_middle_of_a_snapshot(
    bridge_settings: BridgeSettings, tmp_path: Path
) -> None:
    dsn = bridge_settings.postgres_dsn
    server = ServerProcess(tmp_path, bridge_settings.nats_url, ZEPHYR_POSTGRES_DSN=dsn)
    try:
        async with running(bridge_settings):
            await server.start()
            fill(dsn)
            async with (
                Client(server.address) as client,
                client.subscribe(
                    start=snapshot(page_size=50), credit=CreditWindow(60, 10_000_000)
                ) as subscription,
            ):
                replica = Replica()
                async for item in subscription:
                    replica.take(item)
                    if len(replica.events) == 200 and len(replica.begun) == 1:
                        await server.kill()
                        await server.start()
                    if replica.ended:
                        break
                assert replica.begun == ["", "CONNECTION_LOST"]
                assert len(replica.events) >= COUNT
                assert fold(replica.events) == await fold_up_to(client, replica.ended[0].cursor)
    finally:
        await server.kill()


@pytest.fixture
async def client(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[Client]:
    async with serving(nats_server.url) as address, Client(address) as result:
        yield result


async def test_a_list_has_all_pages_and_cursors_to_go_on_after(client: Client, writer: StreamWriter) -> None:
    stored = await writer.commit_each(Change(kind="note" if n % 3 else "user") for n in range(90))
    await eventually(lambda: stored)
    notes = [item for item in stored if item.change is not None and item.change.kind == "note"]
    listed = [event async for event in client.list_events(kinds=["note"], page_size=7)]
    assert [event.sequence for event in listed] == sequences(notes)
    pages = [page async for page in client.list_events(page_size=40).pages()]
    assert sum(map(len, pages)) == len(stored)
    assert max(map(len, pages)) == 40
    middle = listed[29].cursor
    rest = [event.sequence async for event in client.list_events(kinds=["note"], after=middle)]
    assert rest == sequences(notes)[30:]
    async with client.subscribe(kinds=["note"], start=after(middle)) as subscription:
        async for event in subscription:
            assert event.sequence == rest[0]
            break


async def test_times_bound_a_list_and_begin_a_subscription(client: Client, writer: StreamWriter) -> None:
    before = datetime.now(UTC)
    stored = await writer.commit(Change(), Change())
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [event.sequence async for event in client.list_events(since=before, until=later)] == sequences(
        stored
    )
    assert [event async for event in client.list_events(until=before - timedelta(hours=1))] == []
    async with client.subscribe(start=at_time(before - timedelta(hours=1))) as subscription:
        async for event in subscription:
            assert event.sequence == stored[0].sequence
            break
    with pytest.raises(ArgumentInvalid):
        _ = [event async for event in client.list_events(kinds=["cat"])]
    with pytest.raises(ArgumentInvalid, match="no time zone"):
        client.list_events(since=datetime(2026, 1, 1))  # noqa: DTZ001  # that is what is refused
