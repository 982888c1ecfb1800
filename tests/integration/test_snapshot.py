"""A snapshot under writes: folded up to its end it is the state at its cursor, and the tail goes on there."""

from __future__ import annotations

import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]  # it has no marker

from bridge.settings import BridgeSettings
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from protos.events.v1.rejected_pb2 import Rejected
from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid, Unavailable
from realtime.status import from_error
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.churn import churning
from tests.fixtures.raw_stream import raw_stream, snapshot
from tests.fixtures.realtime_server import serving
from tests.fixtures.snapshot_fold import Folded, fold_items, fold_stored
from tests.fixtures.snapshot_kit import FILL, SnapshotKit, detail, opened_server, whole
from tests.fixtures.stream_reader import Reader
from tests.fixtures.stream_states import read_all


async def test_a_snapshot_is_the_tables(snapshot_kit: SnapshotKit, stream_reader: Reader) -> None:
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    await snapshot_kit.stream.open("a", start=snapshot())
    await whole(snapshot_kit.stream, "a")
    account = snapshot_kit.stream["a"]
    assert account.said[:2] == ["ready", "snapshot_page"]
    assert len(account.items) == 4 + 40 + 2000 + sum(i.event.type == "membership.read" for i in account.items)
    cursor = Cursor.decode(account.cursor)
    assert fold_items(account.items) == fold_stored(await read_all(stream_reader), cursor.sequence)
    snapshot_kit.execute("UPDATE notes SET title = 'after'")
    await snapshot_kit.stream.until(lambda: len(account.events) == 2000)
    assert account.said.count("caught_up") == 1


async def test_under_writes_it_is_the_state_at_its_cursor_and_the_tail_goes_on(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    snapshot_kit.execute(*FILL)
    stream = snapshot_kit.stream
    names = [f"s{at}" for at in range(8)]
    async with churning(snapshot_kit.dsn):
        for name in names:
            await stream.open(name, start=snapshot(50 if name == "s1" else 0))
            await whole(stream, name)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stored = await read_all(stream_reader)
    last = [message.sequence for message in stored if not message.is_mark][-1]
    for name in names:
        account = stream[name]
        await stream.until(lambda account=account: (account.through or 0) >= last)  # type: ignore[misc]
        through = Cursor.decode(account.end.cursor).sequence
        assert fold_items(account.items) == fold_stored(stored, through), name
        everything = [*account.items, *account.events]
        assert fold_items(everything) == fold_stored(stored, last), name
        assert account.events[0].sequence > through
        assert [item.sequence for item in account.events] == [
            message.sequence for message in stored if message.sequence > through and not message.is_mark
        ]
        assert account.end.coverage.through == through
    assert any(stream[name].corrections for name in names)
    assert max(len(page.items) for page in stream["s1"].pages) == 50


async def test_a_filter_of_workspaces_under_writes(snapshot_kit: SnapshotKit, stream_reader: Reader) -> None:
    snapshot_kit.execute(*FILL)
    with psycopg.connect(snapshot_kit.dsn) as connection:
        rows = connection.execute("SELECT id::text FROM workspaces ORDER BY slug LIMIT 2").fetchall()
    wanted = {str(row[0]) for row in rows}
    names = [f"s{at}" for at in range(8)]
    async with churning(snapshot_kit.dsn):
        for name in names:
            await snapshot_kit.stream.open(name, pb.Filter(workspace_ids=sorted(wanted)), snapshot())
            await whole(snapshot_kit.stream, name)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stored = await read_all(stream_reader)
    once = {
        message.event.membership.user_id
        for message in stored
        if not message.is_mark
        and message.event.workspace_id in wanted
        and message.event.HasField("membership")
    }
    for name in names:
        through = Cursor.decode(snapshot_kit.stream[name].end.cursor).sequence
        everything = fold_stored(stored, through)
        found = fold_items(snapshot_kit.stream[name].items)
        members: set[str] = set()
        routed: Folded = {}
        for (kind, entity), state in everything.items():
            model = getattr(Event(), kind).FromString(state)
            if kind == "workspace" and entity in wanted:
                routed[kind, entity] = state
            elif kind in ("note", "membership") and model.workspace_id in wanted:
                routed[kind, entity] = state
                if kind == "membership":
                    members.add(model.user_id)
        assert {key: state for key, state in found.items() if key[0] != "user"} == routed
        users = {entity: state for (kind, entity), state in found.items() if kind == "user"}
        assert {user: users.get(user) for user in members} == {
            user: everything["user", user] for user in members
        }
        # Who left while it was read may still be there, as in a replica of the workspace.
        assert users.keys() <= once


async def test_filters_of_kinds_and_entities_and_a_mask(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    snapshot_kit.execute(*FILL)
    with psycopg.connect(snapshot_kit.dsn) as connection:
        note = str(connection.execute("SELECT min(id::text) FROM notes").fetchone()[0])  # type: ignore[index]
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    mask = FieldMask(paths=["title"])
    await stream.open("kinds", pb.Filter(kinds=["user", "workspace"]), snapshot(), field_mask=mask)
    await stream.open("one", pb.Filter(entity_ids=[note, "no-uuid"]), snapshot(), field_mask=mask)
    await stream.open("none", pb.Filter(entity_ids=["no-uuid"]), snapshot())
    for name in ("kinds", "one", "none"):
        await whole(stream, name)
    assert len(stream["kinds"].items) == 44
    assert {item.event.type for item in stream["kinds"].items} == {"user.read", "workspace.read"}
    (item,) = stream["one"].items
    assert (item.event.subject, item.event.type) == (note, "note.read")
    assert item.event.workspace_id
    assert item.event.time > 1_700_000_000_000_000
    assert [field.name for field, _ in item.event.note.ListFields()] == ["title"]
    assert item.event.data_schema == next(
        message.event.data_schema
        for message in await read_all(stream_reader)
        if not message.is_mark and message.event.HasField("note")
    )
    assert stream["none"].items == []


async def test_what_happened_does_not_matter_to_a_snapshot_and_an_unknown_kind_is_refused(
    bridge_settings: BridgeSettings,
) -> None:
    async with (
        running(bridge_settings),
        serving(
            bridge_settings.nats_url, postgres_dsn=bridge_settings.postgres_dsn, extra_kinds="task"
        ) as address,
        raw_stream(address) as stream,
    ):
        await stream.open("empty", start=snapshot())
        await whole(stream, "empty")
        assert stream["empty"].items == []
        assert stream["empty"].end.snapshot_end.items == 0
        await stream.caught_up("empty")
        await stream.open("task", pb.Filter(kinds=["task"]), snapshot(), wait=False)
        error = from_error((await stream.closed("task")).error)
        assert isinstance(error, ArgumentInvalid)
        assert "'task'" in error.message


async def test_credit_counts_for_items(snapshot_kit: SnapshotKit, stream_reader: Reader) -> None:
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    await stream.open("s", pb.Filter(kinds=["note"]), snapshot(), credit=pb.Credit(messages=7))
    await stream.until(lambda: len(stream["s"].items) == 7)
    await stream.ask_progress("s")
    assert len(stream["s"].items) == 7
    assert not stream["s"].last.cursor, "nothing to go on from yet"
    grant = pb.CreditGrant(subscription_id="s", credit=pb.Credit(messages=1993))
    await stream.send(pb.SubscribeRequest(credit=grant))
    await whole(stream, "s")
    assert len(stream["s"].items) == 2000
    await stream.open("witness")
    snapshot_kit.execute("UPDATE notes SET title = 'x' WHERE id = (SELECT id FROM notes LIMIT 1)")
    await stream.until(lambda: stream["witness"].events)
    assert stream["s"].events == []
    grant.credit.messages = 1
    await stream.send(pb.SubscribeRequest(credit=grant))
    await stream.until(lambda: len(stream["s"].events) == 1)


async def test_closing_it_in_its_midst_ends_it_alone(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    await stream.open("s", start=snapshot(), credit=pb.Credit(messages=7))
    await stream.until(lambda: len(stream["s"].items) == 7)
    await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id="s")))
    assert not (await stream.closed("s")).HasField("error")
    await stream.open("t", start=snapshot())
    await whole(stream, "t")


async def test_a_row_that_cannot_be_an_event_is_said_to_be_rejected(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    snapshot_kit.execute(*FILL[:1], "INSERT INTO notes (workspace_id, title) SELECT id, 'n' FROM workspaces")
    large = (
        "INSERT INTO notes (workspace_id, title, body) SELECT id, 'large', repeat('x', 9000000)"
        " FROM workspaces WHERE slug = 'w1'"
    )
    snapshot_kit.execute(large)
    await stream_reader.caught_up(snapshot_kit.dsn)
    await snapshot_kit.stream.open("s", pb.Filter(kinds=["note"]), snapshot())
    await whole(snapshot_kit.stream, "s")
    account = snapshot_kit.stream["s"]
    (rejected,) = [item.event for item in account.items if item.event.HasField("rejected")]
    assert rejected.type == "note.rejected"
    assert rejected.rejected.reason == Rejected.REASON_TOO_LARGE
    assert len(account.items) == 5
    snapshot_kit.execute(large)
    await snapshot_kit.stream.until(lambda: account.events)
    assert account.events[-1].event.type == "note.rejected"
    through = Cursor.decode(account.cursor).sequence
    everything = fold_items([*account.items, *account.events])
    assert everything == {
        key: state
        for key, state in fold_stored(await read_all(stream_reader), through).items()
        if key[0] == "note"
    }


async def test_postgres_away_ends_it_with_unavailable_and_when_to_come_again(
    bridge_settings: BridgeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.snapshot._PATIENCE_S", 1.0)
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url) as address,
        raw_stream(address) as stream,
    ):
        await stream.open("good")
        await stream.open("s", start=snapshot())
        error = (await stream.closed("s")).error
        assert isinstance(from_error(error), Unavailable)
        assert detail(error, rpc.RetryInfo).retry_delay.seconds >= 1
        assert "reset" not in stream["s"].said
        await stream.ask_progress("good")


async def test_a_bridge_that_is_away_ends_it_with_unavailable(
    bridge_settings: BridgeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.snapshot._SILENCE_S", 1.0)
    async with running(bridge_settings) as bridge, opened_server(bridge_settings) as stream:
        await bridge.stop()
        await stream.open("s", start=snapshot())
        error = from_error((await stream.closed("s")).error)
        assert isinstance(error, Unavailable)
        assert "bridge" in error.message


async def test_many_at_once(snapshot_kit: SnapshotKit, stream_reader: Reader) -> None:
    snapshot_kit.execute(*FILL)
    async with churning(snapshot_kit.dsn, writers=1):
        names = [f"s{at}" for at in range(60)]
        for name in names:
            await snapshot_kit.stream.open(name, start=snapshot(), wait=False)
        for name in names:
            await whole(snapshot_kit.stream, name)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stored = await read_all(stream_reader)
    for name in names:
        account = snapshot_kit.stream[name]
        through = Cursor.decode(account.end.cursor).sequence
        assert fold_items(account.items) == fold_stored(stored, through)


async def test_live_events_do_not_wait_for_snapshots_on_the_same_stream(
    snapshot_kit: SnapshotKit, stream_reader: Reader
) -> None:
    snapshot_kit.execute(*FILL)
    await stream_reader.caught_up(snapshot_kit.dsn)
    stream = snapshot_kit.stream
    await stream.open("live", pb.Filter(kinds=["user"]))
    await stream.caught_up("live")
    names = [f"s{at}" for at in range(40)]
    for name in names:
        await stream.open(name, start=snapshot(), wait=False)
    await stream.until(lambda: stream["s0"].items)
    snapshot_kit.execute("INSERT INTO users (email) VALUES ('live')")
    await stream.until(lambda: stream["live"].events)
    assert not all(stream[name].end.HasField("snapshot_end") for name in names)


async def test_its_end_does_not_wait_for_the_next_mark_that_is_due(
    migrated_dsn: str, nats_url: str, slot_name: str
) -> None:
    settings = settings_for(migrated_dsn, nats_url, slot_name, mark_interval_s=50, heartbeat_s=0)
    async with running(settings), opened_server(settings) as stream:
        for name in ("a", "b"):
            await stream.open(name, start=snapshot())
            await stream.until(lambda name=name: stream[name].end.HasField("snapshot_end"), 10)  # type: ignore[misc]
