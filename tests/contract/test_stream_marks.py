"""Marks, fence and confirmations as ``docs/stream-format.md`` says they are, over several bridges."""

from __future__ import annotations

import nats
import nats.js.errors
import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.contract.stream_transaction import note, subject
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.eventually import eventually
from tests.fixtures.format_kit import W1, FormatKit
from tests.fixtures.stream_reader import OWNER, POSITION, Reader, Stored

FENCE = ("Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject")


async def test_marks_and_fence(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    for number in range(3):
        async with running(bridge_settings) as bridge:
            made = f"INSERT INTO users (email) VALUES ('{number}a'), ('{number}b')"
            await FormatKit(bridge, stream_reader, migrated_dsn).commit(made)
    messages = await stream_reader.all()
    # The very first message may only ever be the first.
    assert messages[0].subject == POSITION
    assert messages[0].headers == {"Nats-Expected-Last-Sequence": "0"}
    owner: Stored | None = None
    stored: tuple[int, int] = (0, 0)
    last_mark = (0, 0)
    for message in messages[1:]:
        expected, named = (message.headers.get(name) for name in FENCE)
        assert expected == str(owner.sequence if owner is not None else 0)
        if message.subject == OWNER:
            mark = message.owner
            assert named in (None, OWNER)
            assert mark.term == (owner.owner.term + 1 if owner is not None else 1)
            assert mark.owner
            assert mark.started_at > 1_600_000_000_000_000
            owner = message
        else:
            assert named == OWNER
            assert owner is not None
        if message.subject == POSITION:
            position = message.position
            assert position.term == (owner.owner.term if owner is not None else 0)
            assert position.timeline == 1
            assert position.system_id.isdecimal()
            # All that is stored stands before it, and nothing else.
            assert (position.commit_lsn, position.index) == stored
            assert position.complete
            assert position.wal_lsn >= position.commit_lsn
            assert (position.wal_lsn, position.wal_time) >= last_mark
            last_mark = (position.wal_lsn, position.wal_time)
        elif not message.is_mark:
            assert message.place > stored
            stored = message.place
    assert owner is not None
    assert owner.owner.term == 3
    assert len([m for m in messages if not m.is_mark]) == 6


async def test_a_former_owner_stores_nothing(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    async with running(bridge_settings):
        former = await stream_reader.get(last_by_subj=OWNER)
    assert former is not None
    client = nats.js.JetStreamContext(stream_reader.client)
    fence = {FENCE[0]: str(former.sequence), FENCE[1]: OWNER}
    async with running(bridge_settings) as bridge:
        format_kit = FormatKit(bridge, stream_reader, migrated_dsn)
        before = len(await format_kit.commit(workspace()))
        assert before == 1
        for where in (subject(), POSITION):
            with pytest.raises(nats.js.errors.APIError) as refused:
                await client.publish(where, b"zombie", headers=fence)
            assert refused.value.err_code == 10071
        with pytest.raises(nats.js.errors.APIError) as refused:
            await client.publish(OWNER, b"zombie", headers={FENCE[0]: str(former.sequence)})
        assert refused.value.err_code == 10071
        assert len(await format_kit.commit(note())) == 1
    assert all(message.payload != b"zombie" for message in await stream_reader.all())


def workspace() -> str:
    return f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')"


async def test_a_new_bridge_goes_on_where_the_last_one_ended(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    epochs = set()
    for number in range(3):
        with psycopg.connect(migrated_dsn) as connection:
            connection.execute("INSERT INTO users (email) VALUES (%s)", (f"before {number}",))
        async with running(bridge_settings) as bridge:
            with psycopg.connect(migrated_dsn) as connection:
                connection.execute("INSERT INTO users (email) VALUES (%s)", (f"while {number}",))
            await stream_reader.caught_up(migrated_dsn)
            epochs.add(bridge.terms[0].epoch)
    assert len(epochs) == 1
    emails = [message.event.user.email for message in await stream_reader.events()]
    # What was there before the slot was made is read once, and is no change.
    assert emails == ["before 0", "while 0", "before 1", "while 1", "before 2", "while 2"]


async def test_the_slot_is_confirmed_to_what_is_stored(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    async with running(bridge_settings):
        for number in range(20):
            with psycopg.connect(migrated_dsn) as connection:
                connection.execute("INSERT INTO users (email) VALUES (%s)", (str(number),))
            # Read first: the mark can only have grown since.
            assert await _confirmed(migrated_dsn, bridge_settings.slot) <= await stream_reader.marked_lsn()
        target = await stream_reader.marked_lsn()

        async def is_confirmed() -> bool:
            return await _confirmed(migrated_dsn, bridge_settings.slot) >= target

        await eventually(is_confirmed, what="the slot follows the marks")


async def _confirmed(dsn: str, slot: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            (slot,),
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_held_back_is_what_the_broker_may_lose(
    migrated_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    held = settings_for(migrated_dsn, nats_url, slot_name, hold_back_s=3600)
    async with running(held):
        before = await _confirmed(migrated_dsn, slot_name)
        with psycopg.connect(migrated_dsn) as connection:
            connection.execute("INSERT INTO users (email) VALUES ('a')")
        await stream_reader.caught_up(migrated_dsn)
        marks = await stream_reader.marked_lsn()
        await stream_reader.caught_up(migrated_dsn)
        assert await _confirmed(migrated_dsn, slot_name) == before < marks
