"""What a subscription is told of the source: its last commit, and that it is stalled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1 import stream_pb2 as pb
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import RawStream, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.servers import CopyCluster
from tests.fixtures.stream_reader import POSITION, Reader, wal_lsn
from tests.fixtures.stream_writer import Change, StreamWriter
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer

INSERT = "INSERT INTO workspaces (slug, name) VALUES (%s, 'w')"


async def source_of(stream: RawStream, name: str) -> pb.SourcePosition:
    """Asks how far the subscription is, and gives what is said of the source."""
    await stream.ask_progress(name)
    source = stream[name].last.progress.source
    stream[name].last = pb.SubscribeResponse()
    return source


async def says_stalled(stream: RawStream, name: str, stalled: bool) -> None:
    async def is_so() -> bool:
        return (await source_of(stream, name)).stalled == stalled

    await eventually(is_so, timeout=30)


async def test_commit_times_are_those_of_postgres(
    tmp_path: Path, copy_cluster: CopyCluster, stream_reader: Reader, nats_url: str
) -> None:
    postgres = PostgresServer(tmp_path / "postgres", {"fsync": "off", "track_commit_timestamp": "on"})
    copy_cluster(postgres.data)
    await postgres.start()
    try:
        settings = settings_for(postgres.dsn, nats_url, "times")
        committed = 0
        for term in range(2):
            async with running(settings):
                if committed:
                    # The first mark of a term knows what the last one of the former knew.
                    mark = await stream_reader.get(last_by_subj=POSITION)
                    assert mark is not None
                    assert mark.position.commit_time == committed
                for at in range(3):
                    committed, lsn = commit(postgres.dsn, f"{term}-{at}")
                    await stream_reader.caught_up(postgres.dsn)
                    mark = await stream_reader.get(last_by_subj=POSITION)
                    assert mark is not None
                    assert mark.position.commit_time == committed
                    assert mark.position.commit_lsn < lsn
                    assert mark.position.interval_ms == 100
                # What changes nothing of ours moves the source on, and is no commit of the stream.
                wal_lsn(postgres.dsn)
                await stream_reader.caught_up(postgres.dsn)
                mark = await stream_reader.get(last_by_subj=POSITION)
                assert mark is not None
                assert mark.position.commit_time == committed
        async with running(settings), serving(nats_url) as address, raw_stream(address) as stream:
            await stream.open("a")
            await stream.caught_up("a")
            assert stream["a"].last.caught_up.source.commit_time == committed
            committed, _ = commit(postgres.dsn, "last")
            await stream.until(lambda: stream["a"].events)
            assert stream["a"].events[-1].event.time == committed

            async def is_said() -> bool:
                return (await source_of(stream, "a")).commit_time == committed

            await eventually(is_said)
    finally:
        await postgres.stop()


def commit(dsn: str, slug: str) -> tuple[int, int]:
    """Commits a row; gives the commit's time in microseconds, and an LSN behind it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(f"{INSERT} RETURNING xmin::text", (slug,)).fetchone()
        assert row is not None
        row = connection.execute(
            "SELECT (extract(epoch FROM pg_xact_commit_timestamp(%s::xid)) * 1000000)::bigint,"
            " pg_current_wal_flush_lsn() - '0/0'::pg_lsn",
            (row[0],),
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]) + 1


@asynccontextmanager
async def serving_bridge(settings: BridgeSettings, nats_url: str) -> AsyncIterator[RawStream]:
    """A stream of a server whose stream the bridge has made."""
    async with running(settings):
        pass
    async with serving(nats_url) as address, raw_stream(address) as stream:
        yield stream


async def test_a_source_whose_bridge_is_stopped_is_said_to_be_stalled(
    bridge_settings: BridgeSettings, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.hub.STALLED_AFTER_S", 1.0)
    async with serving_bridge(bridge_settings, nats_url) as stream:
        async with running(bridge_settings):
            await stream.open("a")
            await says_stalled(stream, "a", False)
        await says_stalled(stream, "a", True)
        async with running(bridge_settings):
            await says_stalled(stream, "a", False)


async def test_a_server_that_cannot_read_says_that_the_source_is_stalled(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.mark()
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await says_stalled(stream, "a", False)
        await nats_server.kill()
        await says_stalled(stream, "a", True)
        await nats_server.restart()
        await says_stalled(stream, "a", False)


async def test_fell_behind_says_where_the_source_is(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.mark(wal_lsn=77)
    fallen: list[pb.SubscribeResponse] = []
    async with (
        serving(nats_server.url, ring_entries=64) as address,
        raw_stream(address) as slow,
        raw_stream(address) as quick,
    ):
        await slow.open("s")
        await slow.caught_up("s")
        await quick.open("q")
        for _ in range(20):
            await writer.commit(*(Change(size=4000) for _ in range(200)))
            last = writer.stored[-1].sequence
            await quick.until(lambda last=last: quick["q"].through == last)  # type: ignore[misc]
        async with asyncio.timeout(30):
            while not fallen:
                frame = await slow.read()
                fallen += [frame] if frame.WhichOneof("response") == "fell_behind" else []
    assert fallen[0].fell_behind.source.wal_lsn == 77
