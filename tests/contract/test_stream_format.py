"""The stream as ``docs/stream-format.md`` says it is, read back by a reader of its own.

The bridge, Postgres and NATS are real; the reader takes nothing from the bridge's code, and
of the format's module only what the document says is spelled out here a second time.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator

import nats
import nats.js.errors
import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1.event_pb2 import Event
from tests.fixtures.bridge import OWNER, POSITION, Reader, RunningBridge, Stored, running, settings_for
from tests.fixtures.eventually import eventually

W1, W2 = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
N1, N2 = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
FENCE = ("Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject")
BROKERS_OWN = re.compile(r"Nats-Expected-.*")
HEADERS = {"Zephyr-Id", "Zephyr-Verb", "Zephyr-Changed", "Zephyr-Commit", "Zephyr-Schema"}

Sql = psycopg.Connection[tuple[object, ...]]


class Kit:
    """A bridge that streams, a database with two workspaces, and the stream."""

    def __init__(self, bridge: RunningBridge, reader: Reader, dsn: str) -> None:
        self.bridge = bridge
        self.reader = reader
        self.dsn = dsn
        self._seen = 0

    async def commit(self, *statements: str) -> list[Stored]:
        """Runs statements in one transaction; gives the messages that it became."""
        with psycopg.connect(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        return await self.new()

    async def new(self) -> list[Stored]:
        """What came into the stream since the last time."""
        await self.reader.caught_up(self.dsn)
        found = await self.reader.events(self._seen)
        self._seen = found[-1].sequence if found else self._seen
        return found


@pytest.fixture
async def kit(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> AsyncIterator[Kit]:
    async with running(bridge_settings) as bridge:
        made = Kit(bridge, stream_reader, migrated_dsn)
        await made.commit(
            f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One'), ('{W2}', 'two', 'Two')"
        )
        yield made


def note(note_id: str = N1, workspace: str = W1, title: str = "Title", body: str = "Body") -> str:
    return f"INSERT INTO notes (id, workspace_id, title, body) VALUES ('{note_id}', '{workspace}', '{title}', '{body}')"


def shape(messages: list[Stored]) -> list[tuple[str, str]]:
    return [(message.subject, message.headers["Zephyr-Verb"]) for message in messages]


def subject(note_id: str = N1, workspace: str = W1) -> str:
    return f"zephyr.0.{workspace}.note.{note_id}.row"


def check(messages: list[Stored], epoch: str, dsn: str) -> None:
    """What every transaction's messages must be: headers and envelope say the same."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT system_identifier::text, current_database() FROM pg_control_system()"
        ).fetchone()
    assert row is not None
    system, database = row
    lsn = messages[0].headers["Zephyr-Commit"].split("/")[0]
    assert re.fullmatch(r"[1-9A-F][0-9A-F]*", lsn)
    for index, message in enumerate(messages):
        last = index == len(messages) - 1
        event, headers = message.event, message.headers
        assert headers["Zephyr-Commit"] == f"{lsn}/{index}" + (f"/{len(messages)}" if last else "")
        assert headers["Zephyr-Id"] == f"{system}.{epoch}.{lsn}.{index}" == event.id
        assert {name for name in headers if not BROKERS_OWN.fullmatch(name)} <= HEADERS
        assert headers.get("Zephyr-Changed", "") == ",".join(event.changed)
        assert ("Zephyr-Changed" in headers) == bool(event.changed)
        assert headers["Zephyr-Schema"] == event.data_schema
        assert (event.commit.lsn, event.commit.index) == (int(lsn, 16), index)
        assert event.commit.count == (len(messages) if last else 0)
        root, shard, workspace, kind, entity, suffix = message.subject.split(".")
        assert (root, shard, suffix) == ("zephyr", "0", "row")
        assert (event.workspace_id, event.subject) == (workspace, entity)
        assert event.type == f"{kind}.{headers['Zephyr-Verb']}"
        assert re.fullmatch(rf"/postgres/{system}/{database}/public\.{kind}s", event.source)
        name, slash, fingerprint = event.data_schema.partition("/")
        assert name == f"zephyr.models.v1.{kind.capitalize()}"
        assert re.fullmatch(r"[0-9a-f]{8,64}", fingerprint), (slash, fingerprint)
        has_data = event.WhichOneof("data")
        assert has_data == (None if headers["Zephyr-Verb"] == "truncated" else kind)
        assert abs(event.time - messages[0].event.time) == 0


async def test_insert_update_delete(kit: Kit) -> None:
    epoch = kit.bridge.terms[0].epoch
    (created,) = await kit.commit(note())
    (updated,) = await kit.commit(
        f"UPDATE notes SET title = 'Other', metadata = '{{\"a\": 1}}' WHERE id = '{N1}'"
    )
    (untouched,) = await kit.commit(f"UPDATE notes SET body = body WHERE id = '{N1}'")
    (deleted,) = await kit.commit(f"DELETE FROM notes WHERE id = '{N1}'")
    four = [created, updated, untouched, deleted]
    assert shape(four) == [(subject(), verb) for verb in ("created", "updated", "updated", "deleted")]
    for message in four:
        check([message], epoch, kit.dsn)
    assert created.event.note.title == "Title"
    assert created.event.note.author_id == ""
    assert created.event.note.version == 1
    assert created.event.note.created_at == created.event.note.updated_at > 1_600_000_000_000_000
    assert list(updated.event.changed) == ["title", "version", "updated_at", "metadata"]
    assert (updated.event.note.title, updated.event.note.body) == ("Other", "Body")
    assert dict(updated.event.note.metadata) == {"a": "1"}
    assert list(untouched.event.changed) == ["version", "updated_at"]
    # A deleted event carries the row as it was.
    assert (deleted.event.note.title, deleted.event.note.version) == ("Other", 3)


async def test_an_update_that_changes_no_field(kit: Kit) -> None:
    await kit.commit(note(), "ALTER TABLE notes DISABLE TRIGGER zephyr_count_write")
    (updated,) = await kit.commit(f"UPDATE notes SET body = body WHERE id = '{N1}'")
    check([updated], kit.bridge.terms[0].epoch, kit.dsn)
    assert updated.headers["Zephyr-Verb"] == "updated"
    assert "Zephyr-Changed" not in updated.headers


async def test_a_move_is_left_and_entered(kit: Kit) -> None:
    await kit.commit(note())
    moved = await kit.commit(f"UPDATE notes SET workspace_id = '{W2}', title = 'Moved' WHERE id = '{N1}'")
    check(moved, kit.bridge.terms[0].epoch, kit.dsn)
    assert shape(moved) == [(subject(), "left"), (subject(workspace=W2), "entered")]
    assert (moved[0].event.note.title, moved[0].event.note.workspace_id) == ("Title", W1)
    assert (moved[1].event.note.title, moved[1].event.note.workspace_id) == ("Moved", W2)


async def test_another_primary_key_is_deleted_and_created(kit: Kit) -> None:
    await kit.commit(note())
    renamed = await kit.commit(f"UPDATE notes SET id = '{N2}' WHERE id = '{N1}'")
    check(renamed, kit.bridge.terms[0].epoch, kit.dsn)
    assert shape(renamed) == [(subject(), "deleted"), (subject(N2), "created")]


async def test_truncate_of_several_tables(kit: Kit) -> None:
    await kit.commit(note())
    truncated = await kit.commit("TRUNCATE workspaces CASCADE")
    check(truncated, kit.bridge.terms[0].epoch, kit.dsn)
    assert sorted(shape(truncated)) == [
        (f"zephyr.0._.{kind}._.row", "truncated") for kind in ("membership", "note", "workspace")
    ]
    assert {message.event.subject for message in truncated} == {"_"}


async def test_users_belong_to_no_workspace(kit: Kit) -> None:
    user = str(uuid.uuid4())
    messages = await kit.commit(
        f"INSERT INTO users (id, email) VALUES ('{user}', 'a@example.org')",
        f"INSERT INTO memberships (workspace_id, user_id, role) VALUES ('{W1}', '{user}', 'owner')",
        note(),
        f"UPDATE notes SET author_id = '{user}' WHERE id = '{N1}'",
        f"DELETE FROM users WHERE id = '{user}'",
    )
    check(messages, kit.bridge.terms[0].epoch, kit.dsn)
    member = messages[1].event.membership.id
    assert shape(messages[:4]) == [
        (f"zephyr.0._.user.{user}.row", "created"),
        (f"zephyr.0.{W1}.membership.{member}.row", "created"),
        (subject(), "created"),
        (subject(), "updated"),
    ]
    # What the database does by itself is in the stream as well, in the same transaction.
    assert sorted(shape(messages[4:])) == sorted(
        [
            (f"zephyr.0._.user.{user}.row", "deleted"),
            (f"zephyr.0.{W1}.membership.{member}.row", "deleted"),
            (subject(), "updated"),
        ]
    )


async def test_transactions(kit: Kit) -> None:
    epoch = kit.bridge.terms[0].epoch
    many = await kit.commit(
        f"INSERT INTO notes (workspace_id, title) SELECT '{W1}', 'n' || g FROM generate_series(1, 40) AS g"
    )
    assert [message.event.note.title for message in many] == [f"n{n}" for n in range(1, 41)]
    check(many, epoch, kit.dsn)

    with psycopg.connect(kit.dsn) as connection:
        connection.execute(note().encode())
        connection.rollback()
    assert await kit.commit("SELECT 1") == []
    assert await kit.commit("SELECT pg_current_xact_id()", "CREATE TABLE unpublished (a int)") == []
    assert await kit.commit("INSERT INTO unpublished VALUES (1)") == []

    mixed = await kit.commit(
        note(),
        "SAVEPOINT a",
        note(N2),
        f"UPDATE notes SET title = 'no' WHERE id = '{N1}'",
        "ROLLBACK TO SAVEPOINT a",
        "INSERT INTO unpublished VALUES (2)",
        "SAVEPOINT b",
        f"UPDATE notes SET title = 'yes' WHERE id = '{N1}'",
        "RELEASE SAVEPOINT b",
        "SAVEPOINT c",
        note(N2),
        "ROLLBACK TO SAVEPOINT c",
    )
    check(mixed, epoch, kit.dsn)
    assert shape(mixed) == [(subject(), "created"), (subject(), "updated")]
    assert mixed[1].event.note.title == "yes"


async def test_interleaved_transactions_stand_whole_in_commit_order(kit: Kit) -> None:
    with psycopg.connect(kit.dsn) as first, psycopg.connect(kit.dsn) as second:
        first.execute(note(title="first").encode())
        second.execute(note(N2, title="second").encode())
        first.execute(f"UPDATE notes SET title = 'first again' WHERE id = '{N1}'".encode())
        second.execute(f"UPDATE notes SET title = 'second again' WHERE id = '{N2}'".encode())
        second.commit()
        first.commit()
    messages = await kit.new()
    assert [message.event.note.title for message in messages] == [
        "second",
        "second again",
        "first",
        "first again",
    ]
    check(messages[:2], kit.bridge.terms[0].epoch, kit.dsn)
    check(messages[2:], kit.bridge.terms[0].epoch, kit.dsn)
    assert messages[0].place < messages[2].place


async def test_values(kit: Kit) -> None:
    text = "é𝄞\u202e\x01\t“\\'' {}"
    (strange,) = await kit.commit(
        f"INSERT INTO notes (id, workspace_id, title, body, created_at, updated_at, version, metadata)"
        f" VALUES ('{N1}', '{W1}', '{text}', '', '-infinity', 'infinity', {2**63 - 1},"
        ' \'{"k": null, "é": "ü", "n": 1.50, "o": {"a": [1]}}\')'
    )
    found = strange.event.note
    assert found.title == text.replace("''", "'")
    assert (found.created_at, found.updated_at, found.version) == (-(2**63), 2**63 - 1, 2**63 - 1)
    assert dict(found.metadata) == {"k": "null", "é": "ü", "n": "1.50", "o": '{"a": [1]}'}
    check([strange], kit.bridge.terms[0].epoch, kit.dsn)


async def test_large_rows_and_unchanged_toast(kit: Kit) -> None:
    # md5 does not compress: the body is stored out of line, and an update of the title leaves it out.
    (small,) = await kit.commit(
        f"INSERT INTO notes (id, workspace_id, title, body) SELECT '{N1}', '{W1}', 't',"
        " string_agg(md5(g::text), '') FROM generate_series(1, 1000) AS g"
    )
    (filled,) = await kit.commit(f"UPDATE notes SET title = 'u' WHERE id = '{N1}'")
    assert len(small.event.note.body) == 32_000
    assert filled.event.note.body == small.event.note.body
    assert "body" not in filled.event.changed
    # Just below the limit of 8 MiB: the envelope takes some hundred bytes.
    size = 8 * 1024 * 1024 - 1000
    (large,) = await kit.commit(f"UPDATE notes SET body = repeat('x', {size}) WHERE id = '{N1}'")
    assert len(large.event.note.body) == size
    check([large], kit.bridge.terms[0].epoch, kit.dsn)


async def test_stream_configuration_and_epoch(kit: Kit) -> None:
    info = await kit.reader.info()
    config = info["config"]
    assert config["subjects"] == ["zephyr.>"]
    assert (config["retention"], config["discard"], config["storage"]) == ("limits", "old", "file")
    epoch = config["metadata"]["zephyr-epoch"]
    assert re.fullmatch(r"[0-9a-f]{20}", epoch)
    assert epoch == kit.bridge.terms[0].epoch
    assert config["metadata"]["zephyr-format"] == "1"
    messages = await kit.reader.all()
    assert [m.sequence for m in messages] == list(range(1, len(messages) + 1))
    assert {m.position.epoch for m in messages if m.subject == POSITION} == {epoch}
    assert {m.owner.epoch for m in messages if m.subject == OWNER} == {epoch}


async def test_marks_and_fence(
    bridge_settings: BridgeSettings, stream_reader: Reader, migrated_dsn: str
) -> None:
    for number in range(3):
        async with running(bridge_settings) as bridge:
            made = f"INSERT INTO users (email) VALUES ('{number}a'), ('{number}b')"
            await Kit(bridge, stream_reader, migrated_dsn).commit(made)
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
        kit = Kit(bridge, stream_reader, migrated_dsn)
        before = len(await kit.commit(note_workspace()))
        assert before == 1
        for where in (subject(), POSITION):
            with pytest.raises(nats.js.errors.APIError) as refused:
                await client.publish(where, b"zombie", headers=fence)
            assert refused.value.err_code == 10071
        with pytest.raises(nats.js.errors.APIError) as refused:
            await client.publish(OWNER, b"zombie", headers={FENCE[0]: str(former.sequence)})
        assert refused.value.err_code == 10071
        assert len(await kit.commit(note())) == 1
    assert all(message.payload != b"zombie" for message in await stream_reader.all())


def note_workspace() -> str:
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
    # What was there before the slot was made is no event.
    assert emails == ["while 0", "before 1", "while 1", "before 2", "while 2"]


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


def test_the_event_is_what_the_contract_says() -> None:
    numbers = {field.name: field.number for field in Event.DESCRIPTOR.fields}
    assert numbers["id"] == 1
    assert numbers["commit"] == 8
    assert numbers["note"] == 33
