"""What a bridge cannot go on from: stream, slot, publication or marks are gone.

It is refused and nothing is stored; ``zephyr bridge new-epoch`` mends it.
"""

from __future__ import annotations

import psycopg

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import STREAM, Reader
from tests.integration.bridge_command import EPOCH, UNFIT, bridge, execute, refused


async def mended(settings: BridgeSettings, reader: Reader) -> None:
    """``new-epoch`` mends it: a bridge streams again, under another epoch."""
    info = await reader.info()
    former = info["config"]["metadata"]["zephyr-epoch"] if "config" in info else ""
    ended = await bridge("new-epoch", "--yes", settings=settings)
    assert ended.returncode == 0, ended.stderr
    assert "STREAM" not in ended.stdout
    async with running(settings) as running_again:
        execute(settings.postgres_dsn, "INSERT INTO users (email) VALUES ('mended')")
        await reader.caught_up(settings.postgres_dsn)
        assert running_again.terms[0].epoch != former
        assert running_again.terms[0].term == 1
        assert [message.event.user.email for message in await reader.events()] == ["mended"]


async def test_the_stream_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        pass
    assert (await stream_reader.api(f"STREAM.DELETE.{STREAM}"))["success"]
    await refused(UNFIT, "there is no stream", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_slot_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    execute(bridge_settings.postgres_dsn, f"SELECT pg_drop_replication_slot('{bridge_settings.slot}')")
    await refused(EPOCH, "is gone", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_publication_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    # What is committed without a publication is never decoded again: made anew it would hide a loss.
    execute(
        bridge_settings.postgres_dsn,
        f"DROP PUBLICATION {bridge_settings.publication}",
        "INSERT INTO users (email) VALUES ('lost')",
    )
    await refused(EPOCH, "the publication", "is gone", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_stream_lost_its_end(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        execute(dsn, "INSERT INTO users (email) VALUES ('kept')")
        await stream_reader.caught_up(dsn)
        end = (await stream_reader.info())["state"]["last_seq"]
        execute(dsn, "INSERT INTO users (email) VALUES ('lost')")
        await stream_reader.caught_up(dsn)
        target = await stream_reader.marked_lsn()

        def is_confirmed() -> bool:
            with psycopg.connect(dsn) as connection:
                row = connection.execute(
                    "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
                    " WHERE slot_name = %s",
                    (bridge_settings.slot,),
                ).fetchone()
            return row is not None and row[0] >= target

        await eventually(is_confirmed)
    last = (await stream_reader.info())["state"]["last_seq"]
    for sequence in range(end + 1, last + 1):
        await stream_reader.api(f"STREAM.MSG.DELETE.{STREAM}", {"seq": sequence})
    await refused(EPOCH, "lost its end", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_no_mark_is_left(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    await stream_reader.api(f"STREAM.PURGE.{STREAM}")
    await refused(UNFIT, "no position mark left", "new-epoch", settings=bridge_settings)
    # Nothing was written: nobody was fenced by who did not belong here.
    assert await stream_reader.all() == []
    await mended(bridge_settings, stream_reader)
