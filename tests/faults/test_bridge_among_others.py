"""The bridge beside a publisher that never pauses: its own messages stand scattered among foreign ones.

Nothing of it may be lost, repeated or mistaken, its start must not grow with what others stored, and
no limit of the stream may evict its marks while it runs.
"""

from __future__ import annotations

import time

import pytest

from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, check, more, writing
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.bridge_process import BridgeProcess
from tests.fixtures.eventually import eventually
from tests.fixtures.flood import flood_of, flooding
from tests.fixtures.stream_reader import OWNER, POSITION, Reader

SEED = 23


async def test_kills_beside_a_flood(
    bridge_process: BridgeProcess, bridge_settings: BridgeSettings, nats_url: str, stream_reader: Reader
) -> None:
    await bridge_process.start()
    writer = Writer(bridge_settings.postgres_dsn, SEED)
    await writer.prepare()
    async with flooding(nats_url) as flood, writing(writer):
        for _ in range(3):
            stored = flood.stored
            await more(writer, 15)
            await eventually(lambda before=stored: flood.stored > before + 500)  # type: ignore[misc]
            bridge_process.kill()
            await bridge_process.start()
        await more(writer, 15)
    assert await check(stream_reader, writer) > 100


async def test_a_start_behind_many_messages_of_others(
    bridge_settings: BridgeSettings, nats_url: str, stream_reader: Reader
) -> None:
    # Marks come seldom: the last rows stand behind the last mark, and everything else behind them.
    seldom = bridge_settings.model_copy(update={"mark_interval_s": 60})
    writer = Writer(bridge_settings.postgres_dsn, SEED)
    async with running(seldom), flood_of(nats_url) as flood:
        await writer.prepare()
        for _ in range(10):
            await writer.commit()
            await flood.store(250)

        async def all_stored() -> bool:
            return len(await stream_reader.all(subject="zephyr.0.*.*.*.row")) >= len(writer.committed)

        await eventually(all_stored)
        await flood.store(50_000)
    began = time.monotonic()
    async with running(bridge_settings) as bridge:
        # Message by message it would take minutes.
        assert time.monotonic() - began < 10
        assert bridge.terms[0].position is not None
        await writer.commit()
        await writer.close()
        assert await check(stream_reader, writer) == len(writer.committed)


LIMITS = [
    {"stream_max_msgs": 40_000},
    {"stream_max_bytes": 24_000_000, "max_event_bytes": 2_000_000},
]


@pytest.mark.parametrize("limits", LIMITS, ids=["messages", "bytes"])
async def test_a_flood_does_not_evict_the_marks(
    limits: dict[str, object], migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    # By time they would be written again too seldom.
    settings = settings_for(migrated_dsn, nats_url, slot_name, mark_interval_s=5, heartbeat_s=0, **limits)
    async with running(settings) as bridge, flooding(nats_url, 200, pause_s=0) as flood:
        writer = Writer(migrated_dsn, SEED)
        await writer.prepare()
        for target in (50_000, 100_000):
            await writer.commit()
            await eventually(lambda wanted=target: flood.stored >= wanted, timeout=60)  # type: ignore[misc]
            for mark in (OWNER, POSITION):
                assert await stream_reader.get(last_by_subj=mark) is not None
        await writer.close()
        assert int((await stream_reader.info())["state"]["first_seq"]) > 10_000
        assert len(bridge.terms) == 1
        assert not bridge.ended
        # Still the one that leads, and nothing of it is refused.
        await stream_reader.caught_up(migrated_dsn, timeout=20)


async def test_a_new_term_in_a_flood(
    migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    settings = settings_for(migrated_dsn, nats_url, slot_name, stream_max_msgs=50_000)
    writer = Writer(migrated_dsn, SEED)
    async with flooding(nats_url, 50, pause_s=0.01) as flood:
        for number in range(3):
            async with running(settings) as bridge:
                if not number:
                    await writer.prepare()
                await writer.commit()
                before = flood.stored
                await eventually(lambda former=before: flood.stored > former + 5_000, timeout=30)  # type: ignore[misc]
                assert len(bridge.terms) == 1
                await stream_reader.caught_up(migrated_dsn)
    await writer.close()
