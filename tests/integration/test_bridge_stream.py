"""``zephyr bridge run`` on a stream that is not as it needs it, and on one that is only named otherwise.

Each refusal, a row over the limit as well, is one line with the cause and the mend, and the
exit code that the command line documents.
"""

from __future__ import annotations

import os

import nats
import nats.js.api
import psycopg

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running
from tests.fixtures.stream_reader import POSITION, STREAM, Reader, open_reader
from tests.integration.bridge_command import ROW, UNFIT, execute, refused


async def test_the_stream_exists_with_other_settings(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    await refused(
        UNFIT,
        "max_msgs is -1, wanted 1000",
        "max_age",
        settings=bridge_settings,
        ZEPHYR_STREAM_MAX_MSGS="1000",
        ZEPHYR_STREAM_MAX_AGE_S="60",
    )


async def test_a_stream_that_takes_only_small_messages(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    async with running(bridge_settings):
        pass
    config = (await stream_reader.info())["config"] | {"max_msg_size": 1000}
    assert "error" not in await stream_reader.api(f"STREAM.UPDATE.{STREAM}", config)
    await refused(UNFIT, "max_msg_size is 1000", settings=bridge_settings)


async def test_a_stream_that_is_not_ours(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    client = stream_reader.client.jetstream()
    await client.add_stream(nats.js.api.StreamConfig(name=STREAM, subjects=["other.>"]))
    await refused(UNFIT, "was not made by Zephyr", "ZEPHYR_STREAM", settings=bridge_settings)
    await client.delete_stream(STREAM)
    await client.add_stream(nats.js.api.StreamConfig(name="OTHER", subjects=["zephyr.0.>"]))
    await refused(UNFIT, "cannot be made", settings=bridge_settings)


async def test_marks_that_are_not_ours(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    await stream_reader.client.jetstream().publish(POSITION, b"\xff\xff")
    await refused(UNFIT, "cannot be read", "zephyr._mark.>", settings=bridge_settings)


async def test_a_row_over_the_limit(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        await stream_reader.caught_up(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO users (email) VALUES ('before')")
        connection.execute("INSERT INTO users (email, display_name) VALUES ('large', repeat('x', 5000))")
        connection.execute("INSERT INTO users (email) VALUES ('after')")
    for _ in range(2):
        await refused(
            ROW,
            "public.users",
            "over the limit of 2048",
            "ZEPHYR_BRIDGE_MAX_EVENT_BYTES",
            settings=bridge_settings,
            ZEPHYR_BRIDGE_MAX_EVENT_BYTES="2048",
            ZEPHYR_BRIDGE_ON_POISON="stop",
        )
    # With the limit raised all are there, once.
    async with running(bridge_settings):
        await stream_reader.caught_up(dsn)
    assert [m.event.user.email for m in await stream_reader.events()] == ["before", "large", "after"]


async def test_other_stream_names(bridge_settings: BridgeSettings, nats_url: str) -> None:
    named = bridge_settings.model_copy(update={"stream": "MINE-2"})
    async with running(named), open_reader(nats_url, "MINE-2") as reader:
        execute(named.postgres_dsn, "INSERT INTO users (email) VALUES ('a')")
        await reader.caught_up(named.postgres_dsn)
        assert len(await reader.events()) == 1
    assert os.environ.get("ZEPHYR_STREAM") is None
