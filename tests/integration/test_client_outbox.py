"""``realtime.client``'s emit and set_context through every kind of connection, to the stream."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from bridge.settings import BridgeSettings
from protos.events.v1.publish_pb2 import NewEvent
from realtime.client import emit, emit_async, set_context, set_context_async
from realtime.errors import ArgumentInvalid
from tests.faults.oracle import check_order
from tests.fixtures.bridge import running
from tests.fixtures.stream_reader import Reader

USER = "INSERT INTO users (email) VALUES ('{}')"


def event(entity: str, **more: object) -> NewEvent:
    given: dict[str, object] = {"workspace_id": "_", "kind": "user", "entity_id": entity, "verb": "greeted"}
    return NewEvent(**(given | more))  # type: ignore[arg-type]


async def test_every_kind_of_connection(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    url = dsn.replace("postgresql://", "postgresql+psycopg://")
    async with running(bridge_settings):
        with psycopg.connect(dsn) as connection:
            set_context(connection, actor="connection", correlation_id="c", traceparent="t")
            emit(connection, event("e1"))
            connection.execute(USER.format("u1"))
        with psycopg.connect(dsn, autocommit=True) as connection, connection.cursor() as cursor:
            with connection.transaction():
                set_context(cursor, actor="cursor")
                emit(cursor, event("e2"))
            # By itself it is a transaction of its own, and has no context.
            emit(connection, event("e3"))
        async with await psycopg.AsyncConnection.connect(dsn) as opened:
            await set_context_async(opened, actor="async connection")
            await emit_async(opened, event("e4"))
            async with opened.cursor() as own:
                await emit_async(own, event("e5"))
        engine = create_engine(url)
        with engine.begin() as given:
            set_context(given, actor="engine")
            emit(given, event("e6"))
        with Session(engine) as session:
            set_context(session, actor="session")
            session.execute(text(USER.format("u7")))
            emit(session, event("e7"))
            session.commit()
            emit(session, event("never"))
            session.rollback()
        engine.dispose()
        await stream_reader.caught_up(dsn)
    events = await stream_reader.events()
    check_order(events)
    found = [
        (
            each.event.user.email or each.event.subject,
            each.headers.get("Zephyr-Actor", "").replace("%20", " "),
        )
        for each in events
    ]
    assert found == [
        ("e1", "connection"),
        ("u1", "connection"),
        ("e2", "cursor"),
        ("e3", ""),
        ("e4", "async connection"),
        ("e5", "async connection"),
        ("e6", "engine"),
        ("u7", "session"),
        ("e7", "session"),
    ]
    first = events[0]
    assert (first.event.correlation_id, first.event.traceparent) == ("c", "t")
    assert (first.headers["Zephyr-Correlation"], first.headers["traceparent"]) == ("c", "t")


async def test_sqlalchemys_asynchronous_ones(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio needs it, and we do not")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        engine = create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
        async with engine.begin() as connection:
            await set_context_async(connection, actor="engine")
            await emit_async(connection, event("e1"))
        async with AsyncSession(engine) as session:
            await set_context_async(session, actor="session")
            await emit_async(session, event("e2"))
            await session.commit()
        await engine.dispose()
        await stream_reader.caught_up(dsn)
    found = [(each.event.subject, each.event.actor) for each in await stream_reader.events()]
    assert found == [("e1", "engine"), ("e2", "session")]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("verb", event("e", verb="updated")),
        ("verb", event("e", verb="Greeted")),
        ("workspace_id", event("e", workspace_id="")),
        ("kind", event("e", kind="_")),
        ("entity_id", event("a.b")),
        ("entity_id", event("e" * 257)),
        ("actor", event("e", actor="x" * 1025)),
    ],
)
def test_what_the_bridge_would_reject_is_refused(field: str, bad: NewEvent, migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn) as connection:
        with pytest.raises(ArgumentInvalid, match=rf"event\.{field}"):
            emit(connection, bad)
        # The transaction is what it was.
        emit(connection, event("fine"))


async def test_what_is_no_such_connection(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn, autocommit=True) as connection:
        with pytest.raises(ArgumentInvalid, match="commits each statement"):
            set_context(connection, actor="a")
        with pytest.raises(ArgumentInvalid, match="is not asynchronous"):
            await emit_async(connection, event("e"))  # type: ignore[arg-type]
    async with await psycopg.AsyncConnection.connect(migrated_dsn) as asynchronous:
        with pytest.raises(ArgumentInvalid, match="executes nothing at once"):
            emit(asynchronous, event("e"))
    with pytest.raises(ArgumentInvalid, match="executes nothing"):
        set_context(object(), actor="a")  # type: ignore[arg-type]
    with pytest.raises(ArgumentInvalid, match="actor: it has more than"):
        set_context(object(), actor="a" * 1025)  # type: ignore[arg-type]
