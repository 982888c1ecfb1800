"""Domain events and contexts that transactions emit, through real servers: in order, once, and nothing of what was rolled back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import psycopg

from bridge.settings import BridgeSettings
from protos.events.v1.publish_pb2 import NewEvent
from tests.faults.oracle import check_order
from tests.fixtures.bridge import running
from tests.fixtures.bridge_process import BridgeProcess
from tests.fixtures.eventually import eventually
from tests.fixtures.flood import flooding
from tests.fixtures.stream_reader import Reader, Stored
from tests.integration.bridge_command import ROW, bridge, refused

W = "11111111-1111-4111-8111-111111111111"
EMIT = "SELECT pg_logical_emit_message(%s, 'zephyr.event', %s)"
CONTEXT = "SELECT pg_logical_emit_message(true, 'zephyr.context', %s)"


def said(entity: str, **more: object) -> bytes:
    given: dict[str, object] = {"workspace_id": W, "kind": "note", "entity_id": entity, "verb": "shared"}
    return NewEvent(**(given | more)).SerializeToString()  # type: ignore[arg-type]


def user(connection: psycopg.Connection, email: str) -> None:
    connection.execute("INSERT INTO users (email) VALUES (%s)", (email,))


async def own(reader: Reader) -> list[Stored]:
    """What the bridge stored of transactions."""
    return [m for m in await reader.all(subject="zephyr.0.>") if "Zephyr-Commit" in m.headers]


def told(stored: Stored) -> str:
    """The verb, and the email of a user or the id of what an event is about."""
    event = stored.event
    about = event.user.email if event.HasField("user") else event.subject
    return f"{stored.headers['Zephyr-Verb']} {about}"


async def test_events_stand_in_their_transactions(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        with psycopg.connect(dsn) as connection:
            connection.execute(EMIT, (True, said("first")))
            user(connection, "a")
            connection.execute(EMIT, (True, said("second", actor="Ada")))
        with psycopg.connect(dsn) as connection:
            text = {"workspaceId": W, "kind": "note", "entityId": "alone", "verb": "shared"}
            connection.execute(EMIT, (True, json.dumps(text)))
        await stream_reader.caught_up(dsn)
    events = await own(stream_reader)
    check_order(events)
    assert [told(each) for each in events] == [
        "shared first",
        "created a",
        "shared second",
        "shared alone",
    ]
    first = events[0]
    assert first.subject == f"zephyr.0.{W}.note.first.event"
    event = first.event
    assert event.source == events[1].event.source.replace("public.users", "zephyr.event")
    assert event.id == first.headers["Zephyr-Id"] == events[1].event.id[:-1] + "0"
    assert (event.commit, event.time) == (
        type(event.commit)(lsn=first.place[0], index=0),
        events[1].event.time,
    )
    assert events[2].headers["Zephyr-Actor"] == events[2].event.actor == "Ada"


async def test_what_was_rolled_back_is_not_told(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        with psycopg.connect(dsn) as connection:
            connection.execute(EMIT, (True, said("never")))
            connection.rollback()
            connection.execute(CONTEXT, (b'{"actor": "outer"}',))
            user(connection, "a")
            connection.execute("SAVEPOINT s")
            connection.execute(CONTEXT, (b'{"actor": "inner"}',))
            connection.execute(EMIT, (True, said("undone")))
            user(connection, "undone")
            connection.execute("ROLLBACK TO s")
            user(connection, "b")
            connection.execute("SAVEPOINT t")
            connection.execute(CONTEXT, (b'{"actor": "kept"}',))
            connection.execute(EMIT, (True, said("kept")))
            connection.execute("RELEASE t")
            user(connection, "c")
        with psycopg.connect(dsn) as connection:
            user(connection, "of the next transaction")
        await stream_reader.caught_up(dsn)
    events = await own(stream_reader)
    check_order(events)
    assert [(told(each), each.event.actor) for each in events] == [
        ("created a", "outer"),
        ("created b", "outer"),
        ("shared kept", "kept"),
        ("created c", "kept"),
        ("created of the next transaction", ""),
    ]


async def test_one_that_is_not_transactional_is_passed_over(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(EMIT, (False, said("nowhere")))
            user(connection, "a")
        await stream_reader.caught_up(dsn)
    assert [told(each) for each in await own(stream_reader)] == ["created a"]


async def test_what_cannot_be_an_event(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        with psycopg.connect(dsn) as connection:
            user(connection, "a")
            connection.execute(EMIT, (True, said("x", verb="updated")))
            user(connection, "b")
        await stream_reader.caught_up(dsn)
        listed = await bridge("deadletters", "list", "--json", settings=bridge_settings)
        assert "verb of rows" in listed.stdout
        letter = json.loads(listed.stdout.splitlines()[0])
        replayed = await bridge("deadletters", "replay", letter["id"], settings=bridge_settings)
        assert replayed.returncode != 0
        assert "emit it again" in replayed.stderr
    events = await own(stream_reader)
    check_order(events)
    assert [told(each) for each in events] == ["created a", "rejected _", "created b"]
    # With the other policy the bridge ends there.
    with psycopg.connect(dsn) as connection:
        connection.execute(EMIT, (True, b"\xff"))
    await refused(ROW, "zephyr.events.v1.NewEvent", settings=bridge_settings, ZEPHYR_BRIDGE_ON_POISON="stop")


async def test_kills_repeat_no_event_and_lose_none(
    bridge_process: BridgeProcess, bridge_settings: BridgeSettings, nats_url: str, stream_reader: Reader
) -> None:
    """Beside a publisher whose events have subjects of the same form."""
    dsn = bridge_settings.postgres_dsn
    await bridge_process.start()
    wanted: list[str] = []

    def commit(number: int) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(EMIT, (True, said(f"e{number}")))
            wanted.append(f"shared e{number}")
            if number % 3:
                user(connection, f"u{number}")
                wanted.append(f"created u{number}")
            if number % 5 == 0:
                connection.execute(EMIT, (True, said(f"f{number}")))
                wanted.append(f"shared f{number}")

    async with flooding(nats_url, pause_s=0.02) as flood:
        for number in range(120):
            # In a thread, so that the others publish meanwhile.
            await asyncio.to_thread(commit, number)
            if number % 40 == 39:
                bridge_process.kill()
                bridge_process.spawn()
        await eventually(bridge_process.is_ready, timeout=20)
        assert flood.stored > 0
    await stream_reader.caught_up(dsn)
    events = [message async for message in placed(stream_reader)]
    check_order(events)
    assert [told(each) for each in events] == wanted


async def placed(reader: Reader) -> AsyncIterator[Stored]:
    """The bridge's events among very many: read in pages, not one by one."""
    subscription = await reader.client.jetstream().subscribe(
        "zephyr.0.>", stream=reader.stream, ordered_consumer=True
    )
    left = 1
    while left:
        message = await subscription.next_msg(10)
        left = message.metadata.num_pending
        headers = dict(message.headers or {})
        if "Zephyr-Commit" in headers:
            yield Stored(message.metadata.sequence.stream, message.subject, headers, message.data)
    await subscription.unsubscribe()
