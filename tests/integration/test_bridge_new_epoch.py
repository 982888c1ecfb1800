"""What a bridge cannot go on from: stream, slot, publication or marks are gone.

It is refused and nothing is stored; ``zephyr bridge new-epoch`` mends it: the stream then says what
the tables hold, whatever happened to them in between.
"""

from __future__ import annotations

import psycopg

from bridge.settings import BridgeSettings
from realtime.errors import CursorReset
from realtime.status import from_error
from tests.fixtures.bridge import running
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_reader import OWNER, POSITION, STREAM, Reader
from tests.fixtures.stream_states import check_states
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
        events = await reader.events()
        assert events[-1].event.user.email == "mended"
        await check_states(events, settings.postgres_dsn)


async def drop_slot(settings: BridgeSettings) -> None:
    """Drops the slot of a bridge that was stopped, once the server has ended its session too."""
    query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
    with psycopg.connect(settings.postgres_dsn, autocommit=True) as connection:

        def is_dropped() -> bool:
            return connection.execute(query, (settings.slot,)).fetchone() is not None

        await eventually(is_dropped, what="the stopped bridge's session gives up the slot")


async def test_the_stream_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        pass
    assert (await stream_reader.api(f"STREAM.DELETE.{STREAM}"))["success"]
    await refused(UNFIT, "there is no stream", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_slot_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    await drop_slot(bridge_settings)
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

    async def is_lost() -> bool:
        # A mark that was under way when the bridge stopped may still come.
        nonlocal end
        last = (await stream_reader.info())["state"]["last_seq"]
        for sequence in range(end + 1, last + 1):
            await stream_reader.api(f"STREAM.MSG.DELETE.{STREAM}", {"seq": sequence})
        end = last
        return await stream_reader.marked_lsn() < target

    await eventually(is_lost)
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


W1, W2 = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


async def lose_the_slot(settings: BridgeSettings, reader: Reader) -> int:
    """A stream with notes, then no slot, and changes that nobody saw; gives the stream's last sequence."""
    dsn = settings.postgres_dsn
    async with running(settings):
        execute(
            dsn,
            f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One'), ('{W2}', 'two', 'Two')",
            "INSERT INTO users (email) SELECT 'user' || g FROM generate_series(1, 20) g",
            "INSERT INTO notes (workspace_id, title)"
            f" SELECT '{W1}', 'note' || g FROM generate_series(1, 700) g",
            f"INSERT INTO memberships (workspace_id, user_id, role) SELECT '{W1}', id, 'member' FROM users",
        )
        await reader.caught_up(dsn)
    await drop_slot(settings)
    execute(
        dsn,
        "DELETE FROM notes WHERE title LIKE '%7'",
        f"UPDATE notes SET workspace_id = '{W2}' WHERE title LIKE '%3'",
        "UPDATE notes SET title = 'changed' WHERE title LIKE '%5'",
        "TRUNCATE memberships",
        "DELETE FROM users WHERE email = 'user2'",
        "INSERT INTO users (email) VALUES ('new')",
    )
    return int((await reader.info())["state"]["last_seq"])


async def test_what_vanished_in_between_is_said_to_be_gone(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    last = await lose_the_slot(bridge_settings, stream_reader)
    await refused(EPOCH, "is gone", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)
    said = [message.headers["Zephyr-Verb"] for message in await stream_reader.events(after=last)]
    assert said.count("deleted") == 70 + 1 + 20
    assert said.count("left") == 70
    assert said.count("read") == 2 + 20 + 630
    assert said.count("created") == 1  # by the one that ``mended`` adds


async def test_a_policy_renews_by_itself(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    await lose_the_slot(bridge_settings, stream_reader)
    async with running(bridge_settings.model_copy(update={"on_epoch_lost": "renew"})):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        await check_states(await stream_reader.events(), bridge_settings.postgres_dsn)


async def test_one_that_was_broken_off_is_begun_again(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    await lose_the_slot(bridge_settings, stream_reader)
    # As a kill leaves it: another epoch, and no mark of it yet.
    config = (await stream_reader.info())["config"]
    config["metadata"]["zephyr-epoch"] = "f" * 20
    assert "error" not in await stream_reader.api(f"STREAM.UPDATE.{STREAM}", config)
    await refused(EPOCH, "the stream's marks are of epoch", "new-epoch", settings=bridge_settings)
    config["metadata"]["zephyr-epoch"] = "0" * 20
    assert "error" not in await stream_reader.api(f"STREAM.UPDATE.{STREAM}", config)
    await mended(bridge_settings, stream_reader)
    owner = await stream_reader.get(last_by_subj=OWNER)
    position = await stream_reader.get(last_by_subj=POSITION)
    assert owner is not None
    assert position is not None
    epoch = (await stream_reader.info())["config"]["metadata"]["zephyr-epoch"]
    assert owner.owner.epoch == position.position.epoch == epoch


async def test_a_server_that_reads_the_stream_notices(
    bridge_settings: BridgeSettings, stream_reader: Reader, nats_url: str
) -> None:
    await lose_the_slot(bridge_settings, stream_reader)
    async with serving(nats_url) as address, raw_stream(address) as stream:
        await stream.open("old")
        await stream.caught_up("old")
        await mended(bridge_settings, stream_reader)
        error = from_error((await stream.closed("old")).error)
        assert isinstance(error, CursorReset)
        assert error.reason == "EPOCH_CHANGED"
