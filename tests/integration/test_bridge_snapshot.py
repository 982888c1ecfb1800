"""The copy of the tables with which an epoch begins: whole, once, and joined to the changes without a seam."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from bridge.mapping import load_mapping
from bridge.progress import CopyProgress
from bridge.run import Bridge
from bridge.settings import BridgeSettings
from protos.events.v1.snapshot_pb2 import SnapshotMark
from tests.faults.oracle import Writer, check_order, more, writing
from tests.fixtures.bridge import running
from tests.fixtures.bridge_process import BridgeProcess
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader, Stored
from tests.fixtures.stream_states import check_states, read_all
from tests.integration.bridge_command import UNFIT, execute, refused

SNAPSHOT = "zephyr._mark.0.snapshot"
W1 = "11111111-1111-4111-8111-111111111111"


def fill(dsn: str, notes: int, size: int = 100) -> None:
    """One workspace, and so many notes in it; some users."""
    execute(
        dsn,
        f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')",
        "INSERT INTO users (email, display_name) SELECT 'u' || g, E'tab\\t \\\\N ümlaut\\n'"
        " FROM generate_series(1, 50) g",
        "INSERT INTO notes (workspace_id, title, body, metadata)"
        f" SELECT '{W1}', 'note ' || g, repeat('x', {size}), '{{\"a\": \"b\"}}'"
        f" FROM generate_series(1, {notes}) g",
    )


async def marks(reader: Reader) -> list[SnapshotMark]:
    return [SnapshotMark.FromString(m.payload) for m in await read_all(reader) if m.subject == SNAPSHOT]


async def check(reader: Reader, dsn: str) -> list[Stored]:
    """The stream folds to the tables, each id stands once, and changes stand in their order."""
    await reader.caught_up(dsn, timeout=30)
    events = [message for message in await read_all(reader) if not message.is_mark]
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    check_order([message for message in events if "Zephyr-Commit" in message.headers])
    await check_states(events, dsn)
    return events


async def test_rows_that_were_there_before(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    fill(dsn, 1500)
    async with running(bridge_settings):
        execute(dsn, "UPDATE notes SET title = 'later' WHERE title = 'note 1'")
        events = await check(stream_reader, dsn)
    read = [message for message in events if message.headers["Zephyr-Verb"] == "read"]
    assert len(read) == 1 + 50 + 1500
    for message in read:
        assert "Zephyr-Commit" not in message.headers
        assert not message.event.HasField("commit")
        assert message.event.type.endswith(".read")
        assert message.event.time > 1_600_000_000_000_000
        assert message.headers["Zephyr-Schema"] == message.event.data_schema
    found = await marks(stream_reader)
    assert [mark.attempt for mark in found] == [1] * len(found)
    assert found[-1].complete
    assert found[-1].rows == len(read)
    async with running(bridge_settings):  # it is not copied again
        assert len(await check(stream_reader, dsn)) == len(events)


@pytest.mark.timeout(60)
async def test_while_others_write(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    writer = Writer(dsn, 7)
    await writer.prepare()
    async with writing(writer):
        await more(writer, 50)
        fill_notes(dsn, 20_000)
        async with running(bridge_settings.model_copy(update={"snapshot_workers": 3})):
            await more(writer, 20)
    async with running(bridge_settings):
        await check(stream_reader, dsn)


def fill_notes(dsn: str, notes: int) -> None:
    execute(
        dsn,
        "INSERT INTO notes (workspace_id, title, body)"
        f" SELECT '{W1}', 'note ' || g, repeat('x', 400) FROM generate_series(1, {notes}) g",
    )


@pytest.mark.timeout(120)
async def test_killed_while_it_copies(
    bridge_settings: BridgeSettings, bridge_process: BridgeProcess, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    execute(dsn, f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')")
    execute(dsn, "INSERT INTO workspaces (slug, name) VALUES ('two', 'Two')")
    fill_notes(dsn, 40_000)
    for kill_at in (1, 12_000, 30_000):
        bridge_process.spawn()
        before = (await stream_reader.info()).get("state", {}).get("last_seq", 0)

        async def has_stored(target: int = before + kill_at) -> bool:
            bridge_process.is_ready()
            return bool((await stream_reader.info()).get("state", {}).get("last_seq", 0) >= target)

        await eventually(has_stored, timeout=30)
        bridge_process.kill()
        assert not any(mark.complete for mark in await marks(stream_reader))
        with psycopg.connect(dsn) as connection:
            some = "SELECT id FROM notes TABLESAMPLE BERNOULLI (1)"
            connection.execute(f"DELETE FROM notes WHERE id IN ({some})".encode())
            connection.execute(f"UPDATE notes SET title = 'changed' WHERE id IN ({some})".encode())
            connection.execute(
                "UPDATE notes SET workspace_id = (SELECT id FROM workspaces WHERE slug = 'two')"
                f" WHERE id IN ({some})".encode()
            )
    async with running(bridge_settings):
        events = await check(stream_reader, dsn)
    verbs = [message.headers["Zephyr-Verb"] for message in events]
    assert {"read", "deleted", "left"} <= set(verbs)
    found = await marks(stream_reader)
    assert found[-1].complete
    assert found[-1].attempt >= 3
    # What an earlier attempt had stored was not read again.
    assert found[-1].rows < 39_000


async def test_never(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    fill(bridge_settings.postgres_dsn, 10)
    async with running(bridge_settings.model_copy(update={"snapshot": "never"})):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert await stream_reader.events() == []
        assert await marks(stream_reader) == []


async def test_marks_outlive_a_copy_that_the_stream_cannot_hold(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    fill(bridge_settings.postgres_dsn, 2000)
    settings = bridge_settings.model_copy(update={"stream_max_msgs": 100})
    async with running(settings):
        await stream_reader.caught_up(settings.postgres_dsn)
        assert (await marks(stream_reader))[-1].complete
    async with running(settings) as again:
        assert again.terms[0].term == 2


async def test_a_role_that_may_not_read(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    role = bridge_settings.slot.replace("slot", "role")
    execute(
        dsn,
        f"CREATE ROLE {role} LOGIN REPLICATION",
        f"CREATE PUBLICATION {bridge_settings.publication} FOR TABLE"
        " public.workspaces, public.users, public.memberships, public.notes"
        " WITH (publish_via_partition_root = true)",
    )
    try:
        await refused(
            UNFIT,
            "the tables cannot be copied: permission denied",
            "SELECT",
            "ZEPHYR_SNAPSHOT=never",
            settings=bridge_settings.model_copy(update={"postgres_dsn": dsn.replace("zephyr@", f"{role}@")}),
        )
    finally:
        execute(dsn, f"DROP ROLE {role}")


async def test_slow_and_with_progress(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    fill(bridge_settings.postgres_dsn, 200)
    said: list[CopyProgress] = []
    streams = asyncio.Event()
    settings = bridge_settings.model_copy(update={"snapshot_max_rows_per_s": 500})
    bridge = Bridge(settings, load_mapping(), lambda term: streams.set() if term else None, said.append)
    task = asyncio.ensure_future(bridge.run())
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.wait_for(streams.wait(), 20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began > 0.4
    assert said[-1].is_over
    assert said[-1].rows == 251
    assert [one.rows for one in said] == sorted(one.rows for one in said)
    assert said[-1].tables == 4
