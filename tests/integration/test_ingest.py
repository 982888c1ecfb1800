"""Runs on a real broker: stored whole and in order, or a prefix and nothing after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.errors import Unreachable
from bridge.ingest import FastIngest
from bridge.jetstream import FENCED, JetStreamError, Outbound, connect_nats
from bridge.outgoing import head_of
from bridge.settings import BridgeSettings
from bridge.stream import create_stream, new_epoch
from protos.events.v1 import stream_format as fmt
from tests.fixtures.eventually import eventually
from zephyr.stack.nats import NatsServer

SUBJECT = "zephyr.0.w.note.n.row"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[FastIngest]:
    connection = await connect_nats(url, 2)
    try:
        ingest = FastIngest(connection, "ZEPHYR", 2)
        await ingest.open()
        state = await create_stream(ingest, BridgeSettings(), new_epoch())
        ingest.allows_runs = state.allows_runs
        yield ingest
    finally:
        await connection.close()


async def owner(ingest: FastIngest, expected: int) -> dict[str, str]:
    """Writes an owner mark; gives the fence."""
    sequence = await ingest.publish(fmt.OWNER_SUBJECT, b"", {fmt.FENCE_SEQUENCE: str(expected)})
    return {fmt.FENCE_SEQUENCE: str(sequence), fmt.FENCE_SUBJECT: fmt.OWNER_SUBJECT}


def run_of(count: int, fence: dict[str, str], size: int = 10) -> list[Outbound]:
    return [Outbound(SUBJECT, b"%d " % number + b"x" * size, head_of(fence)) for number in range(count)]


async def stored(ingest: FastIngest) -> list[bytes]:
    found, sequence = [], 1
    while (message := await ingest.next("zephyr.0.>", sequence)) is not None:
        found.append(message.payload)
        sequence = message.sequence + 1
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 500])
async def test_a_run_is_stored_in_order(nats_url: str, count: int) -> None:
    async with opened(nats_url) as ingest:
        assert ingest.allows_runs
        fence = await owner(ingest, 0)
        first, second = run_of(count, fence), run_of(count, fence, size=300)
        assert await ingest.publish_run(first) == 1 + count
        assert await ingest.publish_run(second) == 1 + 2 * count
        assert await stored(ingest) == [each.payload for each in (*first, *second)]


async def test_large_messages_pass_in_a_run(nats_url: str) -> None:
    async with opened(nats_url) as ingest:
        fence = await owner(ingest, 0)
        run = [*run_of(2, fence, 8 << 20), *run_of(3, fence)]
        await ingest.publish_run(run)
        assert [len(each) for each in await stored(ingest)] == [len(each.payload) for each in run]


async def test_nothing_of_a_former_owner_is_stored(nats_url: str) -> None:
    async with opened(nats_url) as ingest:
        former = await owner(ingest, 0)
        await ingest.publish_run(run_of(2, former))
        fence = await owner(ingest, int(former[fmt.FENCE_SEQUENCE]))
        for count in (1, 2, 300):
            with pytest.raises(JetStreamError) as refused:
                await ingest.publish_run(run_of(count, former))
            assert refused.value.error_code == FENCED
        assert len(await stored(ingest)) == 2
        await ingest.publish_run(run_of(3, fence))
        assert len(await stored(ingest)) == 5


async def test_after_a_refused_message_nothing_of_the_run_is_stored(nats_url: str) -> None:
    async with opened(nats_url) as ingest:
        fence = await owner(ingest, 0)
        run = run_of(10, fence)
        run[4] = Outbound(SUBJECT, b"refused", head_of(fence | {fmt.FENCE_SEQUENCE: "99"}))
        with pytest.raises((JetStreamError, Unreachable)):
            await ingest.publish_run(run)
        found = await stored(ingest)
        assert found == [each.payload for each in run[: len(found)]]
        assert len(found) <= 4


async def test_a_broker_that_goes_away_leaves_a_prefix(nats_server: NatsServer) -> None:
    async with opened(nats_server.url) as ingest:
        fence = await owner(ingest, 0)
        await ingest.publish_run(run_of(2, fence))
        await nats_server.kill()
        with pytest.raises(Unreachable):
            await ingest.publish_run(run_of(50, fence))
    await nats_server.start()
    connection = await connect_nats(nats_server.url, 2)
    try:
        found = await stored(FastIngest(connection, "ZEPHYR", 2))
    finally:
        await connection.close()
    assert found[:2] == [each.payload for each in run_of(2, fence)]


async def test_a_connection_that_is_gone_before_it_is_opened(nats_server: NatsServer) -> None:
    connection = await connect_nats(nats_server.url, 2)
    await nats_server.kill()
    await eventually(lambda: connection.is_closed)
    ingest = FastIngest(connection, "ZEPHYR", 2)
    with pytest.raises(Unreachable, match="NATS went away"):
        await ingest.open()
