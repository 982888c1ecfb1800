"""Rows that cannot become events: a marker in their place, their body kept, their neighbours through."""

from __future__ import annotations

import asyncio
import json
import uuid

import psycopg

from bridge.dead_letters import DeadLetters
from bridge.jetstream import JetStream
from bridge.settings import BridgeSettings
from protos.events.v1.rejected_pb2 import DeadLetter, Rejected
from tests.faults.oracle import check_order
from tests.fixtures.bridge import running
from tests.fixtures.stream_reader import Reader, Stored
from tests.integration.bridge_command import ROW, bridge, refused

WORKSPACE = "11111111-1111-4111-8111-111111111111"


def write(dsn: str, *statements: str) -> None:
    """One transaction."""
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def note(number: int, metadata: str = "{}", body: str = "''") -> str:
    key = uuid.UUID(int=number)
    return (
        f"INSERT INTO notes (id, workspace_id, title, body, metadata)"
        f" VALUES ('{key}', '{WORKSPACE}', 'n{number}', {body}, '{metadata}')"
    )


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE notes DROP CONSTRAINT IF EXISTS notes_metadata_check")
        for (name,) in connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'notes'::regclass AND contype = 'c'"
        ).fetchall():
            connection.execute(f'ALTER TABLE notes DROP CONSTRAINT "{name}"'.encode())
    write(dsn, f"INSERT INTO workspaces (id, slug, name) VALUES ('{WORKSPACE}', 'w', 'w')")


async def changes(reader: Reader) -> list[Stored]:
    """The events but those of the first copy."""
    return [message for message in await reader.events() if message.headers["Zephyr-Verb"] != "read"]


async def letters(reader: Reader) -> list[DeadLetter]:
    return [kept.letter async for kept in DeadLetters(JetStream(reader.client, "ZEPHYR", 5), "ZEPHYR").read()]


async def test_a_poison_row_leaves_a_marker_and_its_neighbours_pass(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    async with running(bridge_settings):
        write(migrated_dsn, note(1), note(2, "[1]"), note(3))
        write(migrated_dsn, note(4, "[2]"))
        write(migrated_dsn, note(5))
        await stream_reader.caught_up(migrated_dsn)
    events = await changes(stream_reader)
    check_order(events)
    verbs = [message.headers["Zephyr-Verb"] for message in events]
    assert verbs == ["created", "rejected", "created", "rejected", "created"]
    marker = events[1]
    assert marker.subject == f"zephyr.0.{WORKSPACE}.note.{uuid.UUID(int=2)}.row"
    assert marker.place == (events[0].place[0], 1)
    event = marker.event
    assert (event.type, event.subject, event.id) == (
        "note.rejected",
        str(uuid.UUID(int=2)),
        marker.headers["Zephyr-Id"],
    )
    rejected = event.rejected
    assert (rejected.reason, rejected.table, rejected.column, rejected.verb) == (
        Rejected.REASON_VALUE,
        "public.notes",
        "metadata",
        "created",
    )
    assert "no object" in rejected.message
    # The transaction of one says itself that it is whole.
    assert events[3].event.commit.count == 1
    kept = await letters(stream_reader)
    assert [letter.id for letter in kept] == [events[1].headers["Zephyr-Id"], events[3].headers["Zephyr-Id"]]
    columns = {column.name: column.value for column in kept[0].columns}
    assert (columns["metadata"], columns["title"], columns["id"]) == ("[1]", "n2", str(uuid.UUID(int=2)))


async def test_a_row_over_the_limit_is_kept_whole(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    settings = bridge_settings.model_copy(update={"max_event_bytes": 100_000})
    async with running(settings):
        write(migrated_dsn, note(1), note(2, body="repeat('é', 1500000)"), note(3))
        write(migrated_dsn, f"UPDATE notes SET title = 'again' WHERE id = '{uuid.UUID(int=2)}'")
        write(migrated_dsn, f"UPDATE notes SET body = 'short' WHERE id = '{uuid.UUID(int=2)}'")
        await stream_reader.caught_up(migrated_dsn)
    events = await changes(stream_reader)
    verbs = [message.headers["Zephyr-Verb"] for message in events]
    assert verbs == ["created", "rejected", "created", "rejected", "updated"]
    assert events[4].event.note.body == "short"
    assert events[1].event.rejected.reason == Rejected.REASON_TOO_LARGE
    kept = await letters(stream_reader)
    # The update leaves the large value out, and the replica identity has it.
    for letter in kept:
        (body,) = (column.value for column in letter.columns if column.name == "body")
        assert body == "é" * 1_500_000


async def test_a_letter_is_stored_once_however_often_its_row_is_read(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    async with running(bridge_settings):
        write(migrated_dsn, note(1, "[1]"))
        await stream_reader.caught_up(migrated_dsn)
    (kept,) = await letters(stream_reader)
    store = DeadLetters(JetStream(stream_reader.client, "ZEPHYR", 5), "ZEPHYR")
    epoch = kept.id.split(".")[1]
    await store.store(epoch, kept)
    assert await letters(stream_reader) == [kept]
    large = DeadLetter()
    large.CopyFrom(kept)
    large.index = 9
    large.columns[0].value = "x" * 2_000_000
    # Killed after the first part: the rest follows when the row is read again.
    first = large.SerializeToString()[: 512 * 1024]
    await stream_reader.client.request(
        f"zephyr-dead.0.{epoch}.note.{large.commit_lsn:X}-9.1", first, headers={"Zephyr-Part": "1/4"}
    )
    await store.store(epoch, large)
    assert await letters(stream_reader) == [kept, large]


async def test_the_policy_stop_ends_the_bridge_at_the_row(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    async with running(bridge_settings):
        await stream_reader.caught_up(migrated_dsn)
    write(migrated_dsn, note(1), note(2, "[1]"), note(3))
    said = await refused(ROW, settings=bridge_settings, ZEPHYR_BRIDGE_ON_POISON="stop")
    assert str(uuid.UUID(int=2)) in said
    assert [message.headers["Zephyr-Verb"] for message in await changes(stream_reader)] == ["created"]
    async with running(bridge_settings):
        await stream_reader.caught_up(migrated_dsn)
    assert [message.headers["Zephyr-Verb"] for message in await changes(stream_reader)] == [
        "created",
        "rejected",
        "created",
    ]


async def test_the_commands(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    none = await bridge("deadletters", "list", settings=bridge_settings)
    assert none.returncode == 0, none.stderr
    assert none.stdout == ""
    assert "no dead letters" in none.stderr
    prepare(migrated_dsn)
    async with running(bridge_settings):
        write(migrated_dsn, note(1, "[1]"))
        await stream_reader.caught_up(migrated_dsn)
    listed = await bridge("deadletters", "list", "--json", settings=bridge_settings)
    (line,) = listed.stdout.splitlines()
    letter = json.loads(line)
    assert letter["rejected"]["table"] == "public.notes"
    table = await bridge("deadletters", "list", settings=bridge_settings, COLUMNS="200")
    short = table.stdout.splitlines()[1].split()[0]
    for name in (short, letter["id"]):
        shown = await bridge("deadletters", "show", name, settings=bridge_settings)
        assert shown.returncode == 0, shown.stderr
        assert "metadata" in shown.stdout
        assert "[1]" in shown.stdout
    missing = await bridge("deadletters", "show", "0-0", settings=bridge_settings)
    assert missing.returncode == 1
    assert "no dead letter 0-0" in missing.stderr


async def test_many_poison_rows_are_bounded_in_memory_and_all_kept(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    async with running(bridge_settings) as bridge_:
        await asyncio.to_thread(write, migrated_dsn, *(note(number, "[1]") for number in range(300)))
        await stream_reader.caught_up(migrated_dsn)
        assert len(bridge_.terms) == 1
    assert [message.headers["Zephyr-Verb"] for message in await changes(stream_reader)] == ["rejected"] * 300
    assert len(await letters(stream_reader)) == 300


async def test_a_poison_row_stops_no_copy_and_is_replayed_once_it_is_mended(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    write(migrated_dsn, note(1), note(2, "[1]"), note(3))
    async with running(bridge_settings):
        found = await stream_reader.events()
        verbs = {message.event.subject: message.headers["Zephyr-Verb"] for message in found}
        poison = str(uuid.UUID(int=2))
        assert sorted(verbs.values()) == ["read", "read", "read", "rejected"]
        assert verbs[poison] == "rejected"
        (letter,) = await letters(stream_reader)
        assert letter.rejected.verb == "read"
        listed = await bridge("deadletters", "list", settings=bridge_settings, COLUMNS="200")
        short = listed.stdout.splitlines()[1].split()[0]
        # As it is it still cannot be one: another letter says so.
        again = await bridge("deadletters", "replay", short, settings=bridge_settings)
        assert again.returncode == 0, again.stderr
        assert len(await letters(stream_reader)) == 2
        # Mended where no event tells it: triggers and all, replayed by hand.
        write(
            migrated_dsn,
            "SET session_replication_role = replica",
            f"UPDATE notes SET metadata = '{{}}' WHERE id = '{poison}'",
        )
        await stream_reader.caught_up(migrated_dsn)
        replayed = await bridge("deadletters", "replay", short, settings=bridge_settings)
        assert replayed.returncode == 0, replayed.stderr
        last = (await stream_reader.events())[-1]
        assert (last.headers["Zephyr-Verb"], last.event.subject, last.event.note.title) == (
            "read",
            poison,
            "n2",
        )
        write(migrated_dsn, f"DELETE FROM notes WHERE id = '{poison}'")
        gone = await bridge("deadletters", "replay", short, settings=bridge_settings)
        assert gone.returncode == 0
        assert "is gone" in gone.stderr


async def test_the_end_of_a_poison_row_is_said(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    prepare(migrated_dsn)
    away = "22222222-2222-4222-8222-222222222222"
    write(migrated_dsn, f"INSERT INTO workspaces (id, slug, name) VALUES ('{away}', 'v', 'v')")
    settings = bridge_settings.model_copy(update={"max_event_bytes": 100_000})
    async with running(settings):
        write(migrated_dsn, note(1, "[1]"), note(2, body="repeat('x', 200000)"))
        write(migrated_dsn, f"UPDATE notes SET workspace_id = '{away}' WHERE id = '{uuid.UUID(int=1)}'")
        write(migrated_dsn, "DELETE FROM notes")
        await stream_reader.caught_up(migrated_dsn)
    found = await changes(stream_reader)
    check_order(found)
    one, two = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    said = [(each.headers["Zephyr-Verb"], each.event.subject) for each in found]
    assert said[:4] == [("rejected", one), ("rejected", two), ("left", one), ("rejected", one)]
    assert sorted(said[4:]) == [("deleted", one), ("deleted", two)]
    ends = {each.event.subject: each.event for each in found[-2:]}
    # What can be a field is there; of a row that is too large, the key and the workspace.
    assert (ends[one].note.title, ends[one].workspace_id) == ("n1", away)
    assert (ends[two].note.id, ends[two].note.title, ends[two].workspace_id) == (two, "", WORKSPACE)
