"""Changes to messages: verbs, subjects, headers, envelope, and what is refused."""

from __future__ import annotations

import pytest

from bridge import values
from bridge.change import Begin, Column, Operation, Relation, RowChange, Truncate, Unchanged, Value
from bridge.draft import Draft
from bridge.encode import Encoder
from bridge.errors import EventRejected, EventTooLarge, MappingMismatch
from bridge.fit import FittedColumn, FittedMapping, FittedTable
from bridge.mapping import load_mapping
from bridge.outgoing import Outgoing
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from protos.schema_name import schema_name

SYSTEM, EPOCH = "7300000000000000001", "0198c0ffee00deadbeef"
NOTE, OTHER_NOTE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
HOME, AWAY = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
BEGIN = Begin(commit_lsn=0x16B3748, commit_time_us=1_700_000_000_000_000, xid=7)

TYPES = {
    "version": values.INT8,
    "created_at": values.TIMESTAMPTZ,
    "updated_at": values.TIMESTAMPTZ,
    "metadata": values.JSONB,
}
UUIDS = ("id", "workspace_id", "author_id", "user_id")
ROW: dict[str, Value] = {
    "id": NOTE,
    "workspace_id": HOME,
    "author_id": None,
    "title": "Hello",
    "body": "…",
    "version": "3",
    "created_at": "2026-01-02 03:04:05.123456+00",
    "updated_at": "infinity",
    "metadata": '{"a": "b", "n": 1.50}',
}


def type_of(column: str) -> int:
    return TYPES.get(column, values.UUID if column in UUIDS else values.TEXT)


def fitted() -> FittedMapping:
    tables = {}
    for oid, table in enumerate(load_mapping().tables.values(), start=1):
        columns = {name: FittedColumn(name, type_of(name), type_of(name), "?") for name in table.used_columns}
        tables[table.name] = FittedTable(table, oid, columns)
    return FittedMapping(tables)


def encoder(max_event_bytes: int = 1 << 20) -> Encoder:
    return Encoder(fitted(), SYSTEM, "app", EPOCH, max_event_bytes)


def relation(
    table: str = "notes", identity: str = "f", keys: tuple[str, ...] = (), columns: tuple[str, ...] = ()
) -> Relation:
    names = columns or tuple(ROW)
    described = tuple(Column(name, type_of(name), -1, identity == "f" or name in keys) for name in names)
    return Relation(16400, "public", table, identity, described)


def row(**changes: Value) -> tuple[Value, ...]:
    return tuple({**ROW, **changes}.values())


def insert(of: Relation | None = None, **changes: Value) -> RowChange:
    return RowChange(Operation.INSERT, of or relation(), None, row(**changes))


def update(old: tuple[Value, ...] | None, new: tuple[Value, ...], of: Relation | None = None) -> RowChange:
    return RowChange(Operation.UPDATE, of or relation(), old, new)


def sent(change: RowChange | Truncate) -> list[tuple[Outgoing, Event]]:
    drafts = encoder().encode(change)
    done = [draft.finish(BEGIN, index, 0) for index, draft in enumerate(drafts)]
    return [(message, Event.FromString(message.payload)) for message in done]


def title_of(drafts: list[Draft]) -> str:
    return Event.FromString(drafts[0].finish(BEGIN, 0).payload).note.title


def test_insert() -> None:
    ((message, event),) = sent(insert())
    schema = schema_name(Note.DESCRIPTOR)
    assert message.subject == f"zephyr.0.{HOME}.note.{NOTE}.row"
    assert message.headers == {
        fmt.ID: f"{SYSTEM}.{EPOCH}.16B3748.0",
        fmt.VERB: "created",
        fmt.COMMIT: "16B3748/0",
        fmt.SCHEMA: schema,
    }
    expected = Event(
        id=f"{SYSTEM}.{EPOCH}.16B3748.0",
        type="note.created",
        source=f"/postgres/{SYSTEM}/app/public.notes",
        subject=NOTE,
        time=BEGIN.commit_time_us,
        workspace_id=HOME,
        data_schema=schema,
        note=Note(
            id=NOTE,
            workspace_id=HOME,
            title="Hello",
            body="…",
            version=3,
            created_at=1767323045123456,
            updated_at=values.INT64_MAX,
            metadata={"a": "b", "n": "1.50"},
        ),
    )
    expected.commit.lsn = BEGIN.commit_lsn
    assert event == expected


def test_the_last_message_has_the_count() -> None:
    (draft,) = encoder().encode(insert())
    message = draft.finish(BEGIN, 3, 4)
    assert message.headers[fmt.COMMIT] == str(fmt.CommitPlace(BEGIN.commit_lsn, 3, 4)) == "16B3748/3/4"
    commit = Event.FromString(message.payload).commit
    assert (commit.lsn, commit.index, commit.count) == (BEGIN.commit_lsn, 3, 4)


def test_update_names_the_changed_fields() -> None:
    ((message, event),) = sent(update(row(), row(title="Bye", author_id=AWAY, version="4")))
    assert message.headers[fmt.VERB] == "updated"
    assert message.headers[fmt.CHANGED] == "author_id,title,version"
    assert list(event.changed) == ["author_id", "title", "version"]
    assert (event.type, event.note.title, event.note.author_id) == ("note.updated", "Bye", AWAY)


def test_update_of_nothing() -> None:
    ((message, event),) = sent(update(row(), row()))
    assert message.headers[fmt.VERB] == "updated"
    assert fmt.CHANGED not in message.headers
    assert not event.changed


def test_a_move_is_left_and_entered() -> None:
    left, entered = sent(update(row(), row(workspace_id=AWAY, title="Moved")))
    assert [message.headers[fmt.VERB] for message, _ in (left, entered)] == ["left", "entered"]
    assert left[0].subject == f"zephyr.0.{HOME}.note.{NOTE}.row"
    assert entered[0].subject == f"zephyr.0.{AWAY}.note.{NOTE}.row"
    assert (left[1].workspace_id, left[1].note.title) == (HOME, "Hello")
    assert (entered[1].workspace_id, entered[1].note.title) == (AWAY, "Moved")
    assert entered[0].headers[fmt.COMMIT] == "16B3748/1"


def test_another_key_is_deleted_and_created() -> None:
    deleted, created = sent(update(row(), row(id=OTHER_NOTE, workspace_id=AWAY)))
    assert deleted[0].subject == f"zephyr.0.{HOME}.note.{NOTE}.row"
    assert created[0].subject == f"zephyr.0.{AWAY}.note.{OTHER_NOTE}.row"
    assert [message.headers[fmt.VERB] for message, _ in (deleted, created)] == ["deleted", "created"]


def test_delete_has_the_old_row() -> None:
    ((message, event),) = sent(RowChange(Operation.DELETE, relation(), row(), None))
    assert message.headers[fmt.VERB] == "deleted"
    assert event.note.title == "Hello"


def test_truncate_is_one_message_a_mapped_table() -> None:
    tables = (relation(), Relation(5, "public", "elsewhere", "f", ()))
    ((message, event),) = sent(Truncate(tables))
    assert message.subject == "zephyr.0._.note._.row"
    assert message.headers[fmt.VERB] == "truncated"
    assert (event.type, event.subject, event.workspace_id) == ("note.truncated", "_", "_")
    assert event.WhichOneof("data") is None


def test_a_row_without_workspace() -> None:
    names = ("id", "email", "display_name", "metadata", "version", "created_at", "updated_at")
    when = "2026-01-02 03:04:05+00"
    user = RowChange(
        Operation.INSERT, relation("users", columns=names), None, (NOTE, "a@b.c", "A", "{}", "1", when, when)
    )
    ((message, event),) = sent(user)
    assert message.subject == f"zephyr.0._.user.{NOTE}.row"
    assert event.workspace_id == "_"
    assert event.user.email == "a@b.c"


def test_an_empty_row_still_has_its_message() -> None:
    of = relation()
    plain = insert(of, title=None, body=None, version=None, created_at=None, updated_at=None, metadata=None)
    ((_, event),) = sent(plain)
    assert event.note == Note(id=NOTE, workspace_id=HOME)


def test_a_table_that_is_not_mapped_gives_nothing() -> None:
    assert encoder().encode(insert(relation("elsewhere"))) == []


def test_unchanged_large_values_come_from_the_old_row() -> None:
    ((message, event),) = sent(update(row(body="x" * 10_000), row(title="Bye", body=Unchanged.TOAST)))
    assert event.note.body == "x" * 10_000
    assert message.headers[fmt.CHANGED] == "title"


def test_an_unchanged_large_value_that_nothing_holds() -> None:
    of = relation(identity="d", keys=("id", "workspace_id"))
    with pytest.raises(EventRejected, match="unchanged value of body") as raised:
        sent(update(None, row(body=Unchanged.TOAST), of))
    assert NOTE in raised.value.message
    assert "REPLICA IDENTITY FULL" in raised.value.mend


def test_without_old_values_every_field_but_the_identity_counts_as_changed() -> None:
    of = relation(identity="i", keys=("id", "workspace_id"))
    ((message, _),) = sent(update(None, row(), of))
    assert set(message.headers[fmt.CHANGED].split(",")) == set(ROW) - {"id", "workspace_id"}
    only_key = tuple(value if name in ("id", "workspace_id") else None for name, value in ROW.items())
    left, entered = sent(update(only_key, row(workspace_id=AWAY), of))
    assert left[1].note == Note(id=NOTE, workspace_id=HOME)
    assert entered[1].note.title == "Hello"


@pytest.mark.parametrize(
    ("changes", "column", "reason"),
    [
        ({"workspace_id": None}, "workspace_id", "is NULL"),
        ({"id": None}, "id", "is NULL"),
        ({"metadata": "[]"}, "metadata", "no object"),
        ({"version": "many"}, "version", "invalid literal"),
        ({"created_at": "294276-12-31 23:59:59+00"}, "created_at", "past the greatest int64"),
    ],
)
def test_a_row_that_cannot_become_an_event(changes: dict[str, Value], column: str, reason: str) -> None:
    with pytest.raises(EventRejected, match=reason) as raised:
        sent(insert(None, **changes))
    key = changes.get("id", NOTE) or "NULL"
    assert raised.value.message.startswith(f"public.notes id={key}: {column}: ")
    assert raised.value.exit_code == 7
    assert raised.value.mend


@pytest.mark.parametrize("key", ["a.b", "", "a b", "*", ">", "_", "é", "x" * 10 + "\n"])
def test_a_key_that_is_no_token(key: str) -> None:
    known = fitted()
    notes = known.tables["public.notes"]
    text_key = FittedColumn("id", values.TEXT, values.TEXT, "text")
    known.tables["public.notes"] = FittedTable(notes.mapping, notes.oid, {**notes.columns, "id": text_key})
    columns = tuple(Column(name, values.TEXT if name == "id" else type_of(name), -1, True) for name in ROW)
    of = Relation(1, "public", "notes", "f", columns)
    text_keyed = Encoder(known, SYSTEM, "app", EPOCH, 1 << 20)
    (draft,) = text_keyed.encode(insert(of, id="fine-Key_1"))
    assert draft.finish(BEGIN, 0).subject == f"zephyr.0.{HOME}.note.fine-Key_1.row"
    (draft,) = text_keyed.encode(insert(of, id=key))
    with pytest.raises(EventRejected, match="cannot stand in a subject"):
        draft.finish(BEGIN, 0)


def test_an_event_over_the_limit() -> None:
    (draft,) = encoder(2000).encode(insert(body="x" * 2000))
    with pytest.raises(EventTooLarge) as raised:
        draft.finish(BEGIN, 0, 1)
    assert f"public.notes {NOTE}" in raised.value.message
    assert "2000" in raised.value.message
    assert "ZEPHYR_BRIDGE_MAX_EVENT_BYTES" in raised.value.mend


def test_a_relation_that_lacks_a_column_or_has_another_type() -> None:
    less = relation(columns=tuple(name for name in ROW if name != "body"))
    since = encoder()
    since.commit_lsn = 1
    with pytest.raises(MappingMismatch, match=r"public\.notes\.body: rows in the WAL lack the column"):
        since.encode(RowChange(Operation.INSERT, less, None, ("x",) * 8))
    # A row from before the check is of a time when there was no such column yet.
    values_of = tuple(value for name, value in ROW.items() if name != "body")
    ((_, event),) = sent(RowChange(Operation.INSERT, less, None, values_of))
    assert (event.note.title, event.note.body) == ("Hello", "")
    columns = tuple(
        Column(each.name, values.INT4 if each.name == "title" else each.type_oid, -1, True)
        for each in relation().columns
    )
    other = Relation(1, "public", "notes", "f", columns)
    with pytest.raises(MappingMismatch, match=r"public\.notes\.title: rows in the WAL are of another type"):
        encoder().encode(insert(other))
    with pytest.raises(MappingMismatch, match=r"workspace_id: old rows in the WAL lack the column"):
        encoder().encode(insert(relation(identity="d", keys=("id",))))


def test_the_same_columns_before_the_check_and_after_it() -> None:
    less = relation(columns=tuple(name for name in ROW if name != "body"))
    values_of = tuple(value for name, value in ROW.items() if name != "body")
    one, told = encoder(), []
    one.altered = lambda plan, _: told.append((plan.absent, len(plan.mismatches)))
    # It had not come yet.
    one.encode(RowChange(Operation.INSERT, less, None, values_of))
    # It came, no row was written, and it went: Postgres tells the relation anew, and its columns are as before.
    again = relation(columns=tuple(name for name in ROW if name != "body"))
    one.commit_lsn = 1
    one.encode(RowChange(Operation.INSERT, again, None, values_of))
    assert told == [(("body",), 0), (("body",), 1)]


def test_a_new_version_of_a_relation_gets_a_new_plan() -> None:
    one = encoder()
    first = relation()
    assert title_of(one.encode(insert(first))) == "Hello"
    names = (*reversed(ROW), "added")
    wider = relation(columns=names)
    values_of = tuple({**ROW, "added": "new"}[name] for name in names)
    assert title_of(one.encode(RowChange(Operation.INSERT, wider, None, values_of))) == "Hello"
    assert title_of(one.encode(insert(first))) == "Hello"
