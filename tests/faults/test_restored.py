"""Postgres is put back to an older copy of itself: what the stream holds never happened there.

Nothing can mend that but a new epoch, so the bridge has to refuse, and must not go on in silence.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg import AsyncConnection

from tests.faults.test_verified import SEED
from tests.fixtures.servers import CopyCluster
from zephyr.verify.bridge import Bridge
from zephyr.verify.field import Field, open_field
from zephyr.verify.stored import last_sequence, marked_lsn, read
from zephyr.verify.wait import until

EXIT_EPOCH_LOST = 6


async def ended(bridge: Bridge) -> int:
    """Waits until it has ended by itself, and gives its exit code."""

    async def has() -> bool:
        return bridge.exit_code is not None

    await until(has, "the bridge ends")
    code = bridge.exit_code
    assert code is not None
    return code


async def is_past(connection: AsyncConnection, lsn: int) -> bool:
    row = await (await connection.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")).fetchone()
    return row is not None and int(row[0]) > lsn


@asynccontextmanager
async def older_copy(folder: Path, copy_cluster: CopyCluster) -> AsyncIterator[Field]:
    """A stream that is ahead of a cold copy of Postgres, which ``put_back`` restores; no bridge runs."""
    copy_cluster(folder / "postgres")
    async with open_field(folder, {"fsync": "off"}, ZEPHYR_BRIDGE_HOLD_BACK_S="0") as field:
        await field.bridge.stop()
        await field.postgres.stop()
        await asyncio.to_thread(shutil.copytree, cluster_of(field), field.folder / "copy", symlinks=True)
        await field.postgres.start()
        async with field.writing(SEED):
            await field.more(50)
        assert (await field.verdict()).holds
        await field.bridge.stop()
        yield field


def cluster_of(field: Field) -> Path:
    return field.postgres.data / "cluster"


async def put_back(field: Field, *, with_slots: bool, start: bool = True) -> None:
    await field.postgres.stop()
    cluster = cluster_of(field)
    owner = cluster.stat()
    shutil.rmtree(cluster)
    await asyncio.to_thread(shutil.copytree, field.folder / "copy", cluster, symlinks=True)
    for path in (cluster, *cluster.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    if not with_slots:
        for slot in (cluster / "pg_replslot").iterdir():
            shutil.rmtree(slot)
    if start:
        await field.postgres.start()


async def is_promoted(connection: AsyncConnection) -> bool:
    return await (await connection.execute("SELECT 1 WHERE NOT pg_is_in_recovery()")).fetchone() is not None


async def promote(field: Field) -> None:
    """Starts the stopped server as a restored backup that is promoted at the end of the WAL it has."""
    (cluster_of(field) / "recovery.signal").touch()
    with (cluster_of(field) / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    await field.postgres.start()
    async with field.database() as connection:
        await until(lambda: is_promoted(connection), "the server is promoted")


async def timeline_of(connection: AsyncConnection) -> int:
    row = await (
        await connection.execute(
            "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
        )
    ).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_promoted_server_that_has_all_of_it_is_continued(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    copy_cluster(tmp_path / "postgres")
    async with open_field(tmp_path, {"fsync": "off"}, ZEPHYR_BRIDGE_HOLD_BACK_S="0") as field:
        async with field.writing(SEED):
            await field.more(50)
        assert (await field.verdict()).holds
        await field.bridge.stop()
        await field.postgres.stop()
        await promote(field)
        async with field.database() as connection:
            assert await timeline_of(connection) == 2
        await field.bridge.start()
        async with field.writing(SEED + 1):
            await field.more(50)
        assert (await field.verdict()).holds
        # And again from marks of the new timeline.
        await field.bridge.stop()
        await field.bridge.start()
        async with field.writing(SEED + 2):
            await field.more(20)
        assert (await field.verdict()).holds


async def test_a_promoted_copy_that_lacks_the_streams_end_is_refused(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    async with older_copy(tmp_path, copy_cluster) as field:
        async with field.client() as client:
            marked = await marked_lsn(client)
        await put_back(field, with_slots=True, start=False)
        await promote(field)
        # It goes on past the stream's last mark: neither its position nor its timeline is behind.
        async with field.writing(SEED + 1):
            await field.more(200)
            async with field.database() as connection:
                await until(lambda: is_past(connection, marked), "the copy overtakes the stream")
        async with field.client() as client:
            before = await last_sequence(client)
            field.bridge.spawn()
            assert await ended(field.bridge) == EXIT_EPOCH_LOST, field.bridge.log.tail()
            assert "Postgres left timeline 1 at" in field.bridge.log.path.read_text()
            # Not even an owner mark.
            assert await last_sequence(client) == before


async def test_an_older_copy_is_refused(tmp_path: Path, copy_cluster: CopyCluster) -> None:
    async with older_copy(tmp_path, copy_cluster) as field, field.client() as client:
        before = await last_sequence(client)
        # A copy of the files has the slot as it was; a base backup has none.
        for with_slots in (True, False):
            await put_back(field, with_slots=with_slots)
            field.bridge.spawn()
            assert await ended(field.bridge) == EXIT_EPOCH_LOST, field.bridge.log.tail()
            assert "new-epoch" in field.bridge.log.path.read_text()
        assert await last_sequence(client) == before


async def test_an_older_copy_that_went_on_past_the_stream_is_refused(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    async with older_copy(tmp_path, copy_cluster) as field:
        async with field.client() as client:
            marked = await marked_lsn(client)
        await put_back(field, with_slots=True)
        async with field.writing(SEED + 1):
            await field.more(200)
            async with field.database() as connection:
                await until(lambda: is_past(connection, marked), "the copy overtakes the stream")
        async with field.client() as client:
            before = [message async for message in read(client)]
            field.bridge.spawn()
            assert await ended(field.bridge) == EXIT_EPOCH_LOST, field.bridge.log.tail()
            assert "another one since" in field.bridge.log.path.read_text()
            # It began to stream, and met no transaction where the stream's last one stood.
            assert [message async for message in read(client)] == before
