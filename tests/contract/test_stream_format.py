"""Events as ``docs/stream-format.md`` says they are, read back by a reader of its own.

The bridge, Postgres and NATS are real; the reader takes nothing from the bridge's code, and
of the format's module only what the document says is spelled out a second time.
"""

from __future__ import annotations

import re
import uuid

import psycopg

from protos.events.v1.event_pb2 import Event
from tests.contract.stream_transaction import N1, N2, check_transaction, note, shape, subject
from tests.fixtures.format_kit import W1, W2, FormatKit
from tests.fixtures.stream_reader import OWNER, POSITION


async def test_insert_update_delete(format_kit: FormatKit) -> None:
    epoch = format_kit.bridge.terms[0].epoch
    (created,) = await format_kit.commit(note())
    (updated,) = await format_kit.commit(
        f"UPDATE notes SET title = 'Other', metadata = '{{\"a\": 1}}' WHERE id = '{N1}'"
    )
    (untouched,) = await format_kit.commit(f"UPDATE notes SET body = body WHERE id = '{N1}'")
    (deleted,) = await format_kit.commit(f"DELETE FROM notes WHERE id = '{N1}'")
    four = [created, updated, untouched, deleted]
    assert shape(four) == [(subject(), verb) for verb in ("created", "updated", "updated", "deleted")]
    for message in four:
        check_transaction([message], epoch, format_kit.dsn)
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


async def test_an_update_that_changes_no_field(format_kit: FormatKit) -> None:
    await format_kit.commit(note(), "ALTER TABLE notes DISABLE TRIGGER zephyr_count_write")
    (updated,) = await format_kit.commit(f"UPDATE notes SET body = body WHERE id = '{N1}'")
    check_transaction([updated], format_kit.bridge.terms[0].epoch, format_kit.dsn)
    assert updated.headers["Zephyr-Verb"] == "updated"
    assert "Zephyr-Changed" not in updated.headers


async def test_a_move_is_left_and_entered(format_kit: FormatKit) -> None:
    await format_kit.commit(note())
    moved = await format_kit.commit(
        f"UPDATE notes SET workspace_id = '{W2}', title = 'Moved' WHERE id = '{N1}'"
    )
    check_transaction(moved, format_kit.bridge.terms[0].epoch, format_kit.dsn)
    assert shape(moved) == [(subject(), "left"), (subject(workspace=W2), "entered")]
    assert (moved[0].event.note.title, moved[0].event.note.workspace_id) == ("Title", W1)
    assert (moved[1].event.note.title, moved[1].event.note.workspace_id) == ("Moved", W2)


async def test_another_primary_key_is_deleted_and_created(format_kit: FormatKit) -> None:
    await format_kit.commit(note())
    renamed = await format_kit.commit(f"UPDATE notes SET id = '{N2}' WHERE id = '{N1}'")
    check_transaction(renamed, format_kit.bridge.terms[0].epoch, format_kit.dsn)
    assert shape(renamed) == [(subject(), "deleted"), (subject(N2), "created")]


async def test_truncate_of_several_tables(format_kit: FormatKit) -> None:
    await format_kit.commit(note())
    truncated = await format_kit.commit("TRUNCATE workspaces CASCADE")
    check_transaction(truncated, format_kit.bridge.terms[0].epoch, format_kit.dsn)
    assert sorted(shape(truncated)) == [
        (f"zephyr.0._.{kind}._.row", "truncated") for kind in ("membership", "note", "workspace")
    ]
    assert {message.event.subject for message in truncated} == {"_"}


async def test_users_belong_to_no_workspace(format_kit: FormatKit) -> None:
    user = str(uuid.uuid4())
    messages = await format_kit.commit(
        f"INSERT INTO users (id, email) VALUES ('{user}', 'a@example.org')",
        f"INSERT INTO memberships (workspace_id, user_id, role) VALUES ('{W1}', '{user}', 'owner')",
        note(),
        f"UPDATE notes SET author_id = '{user}' WHERE id = '{N1}'",
        f"DELETE FROM users WHERE id = '{user}'",
    )
    check_transaction(messages, format_kit.bridge.terms[0].epoch, format_kit.dsn)
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


async def test_transactions(format_kit: FormatKit) -> None:
    epoch = format_kit.bridge.terms[0].epoch
    many = await format_kit.commit(
        f"INSERT INTO notes (workspace_id, title) SELECT '{W1}', 'n' || g FROM generate_series(1, 40) AS g"
    )
    assert [message.event.note.title for message in many] == [f"n{n}" for n in range(1, 41)]
    check_transaction(many, epoch, format_kit.dsn)

    with psycopg.connect(format_kit.dsn) as connection:
        connection.execute(note().encode())
        connection.rollback()
    assert await format_kit.commit("SELECT 1") == []
    assert await format_kit.commit("SELECT pg_current_xact_id()", "CREATE TABLE unpublished (a int)") == []
    assert await format_kit.commit("INSERT INTO unpublished VALUES (1)") == []

    mixed = await format_kit.commit(
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
    check_transaction(mixed, epoch, format_kit.dsn)
    assert shape(mixed) == [(subject(), "created"), (subject(), "updated")]
    assert mixed[1].event.note.title == "yes"


async def test_interleaved_transactions_stand_whole_in_commit_order(format_kit: FormatKit) -> None:
    with psycopg.connect(format_kit.dsn) as first, psycopg.connect(format_kit.dsn) as second:
        first.execute(note(title="first").encode())
        second.execute(note(N2, title="second").encode())
        first.execute(f"UPDATE notes SET title = 'first again' WHERE id = '{N1}'".encode())
        second.execute(f"UPDATE notes SET title = 'second again' WHERE id = '{N2}'".encode())
        second.commit()
        first.commit()
    messages = await format_kit.new()
    assert [message.event.note.title for message in messages] == [
        "second",
        "second again",
        "first",
        "first again",
    ]
    check_transaction(messages[:2], format_kit.bridge.terms[0].epoch, format_kit.dsn)
    check_transaction(messages[2:], format_kit.bridge.terms[0].epoch, format_kit.dsn)
    assert messages[0].place < messages[2].place


async def test_values(format_kit: FormatKit) -> None:
    text = "é𝄞\u202e\x01\t“\\'' {}"
    (strange,) = await format_kit.commit(
        f"INSERT INTO notes (id, workspace_id, title, body, created_at, updated_at, version, metadata)"
        f" VALUES ('{N1}', '{W1}', '{text}', '', '-infinity', 'infinity', {2**63 - 1},"
        ' \'{"k": null, "é": "ü", "n": 1.50, "o": {"a": [1]}}\')'
    )
    found = strange.event.note
    assert found.title == text.replace("''", "'")
    assert (found.created_at, found.updated_at, found.version) == (-(2**63), 2**63 - 1, 2**63 - 1)
    assert dict(found.metadata) == {"k": "null", "é": "ü", "n": "1.50", "o": '{"a": [1]}'}
    check_transaction([strange], format_kit.bridge.terms[0].epoch, format_kit.dsn)


async def test_large_rows_and_unchanged_toast(format_kit: FormatKit) -> None:
    # md5 does not compress: the body is stored out of line, and an update of the title leaves it out.
    (small,) = await format_kit.commit(
        f"INSERT INTO notes (id, workspace_id, title, body) SELECT '{N1}', '{W1}', 't',"
        " string_agg(md5(g::text), '') FROM generate_series(1, 1000) AS g"
    )
    (filled,) = await format_kit.commit(f"UPDATE notes SET title = 'u' WHERE id = '{N1}'")
    assert len(small.event.note.body) == 32_000
    assert filled.event.note.body == small.event.note.body
    assert "body" not in filled.event.changed
    # Just below the limit of 8 MiB: the envelope takes some hundred bytes.
    size = 8 * 1024 * 1024 - 1000
    (large,) = await format_kit.commit(f"UPDATE notes SET body = repeat('x', {size}) WHERE id = '{N1}'")
    assert len(large.event.note.body) == size
    check_transaction([large], format_kit.bridge.terms[0].epoch, format_kit.dsn)


async def test_stream_configuration_and_epoch(format_kit: FormatKit) -> None:
    info = await format_kit.reader.info()
    config = info["config"]
    assert config["subjects"] == ["zephyr.>"]
    assert (config["retention"], config["discard"], config["storage"]) == ("limits", "old", "file")
    epoch = config["metadata"]["zephyr-epoch"]
    assert re.fullmatch(r"[0-9a-f]{20}", epoch)
    assert epoch == format_kit.bridge.terms[0].epoch
    assert config["metadata"]["zephyr-format"] == "1"
    messages = await format_kit.reader.all()
    assert [m.sequence for m in messages] == list(range(1, len(messages) + 1))
    assert {m.position.epoch for m in messages if m.subject == POSITION} == {epoch}
    assert {m.owner.epoch for m in messages if m.subject == OWNER} == {epoch}


def test_the_event_is_what_the_contract_says() -> None:
    numbers = {field.name: field.number for field in Event.DESCRIPTOR.fields}
    assert numbers["id"] == 1
    assert numbers["commit"] == 8
    assert numbers["note"] == 33
