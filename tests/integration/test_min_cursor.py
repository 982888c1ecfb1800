"""Reading one's own write: zephyr_cursor() after a COMMIT, or any cursor, as a read's min_cursor."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import psycopg
import pytest

from bridge.settings import BridgeSettings
from protos.events.v1 import read_pb2, read_pb2_grpc
from realtime.client import Client, after, earliest
from realtime.cursor import Cursor, WalCursor, decode_token, text_to_bytes
from realtime.errors import CursorInvalid, CursorReset
from tests.fixtures.bridge import running
from tests.fixtures.realtime_server import DEAD_REDIS, serving
from tests.fixtures.stream_reader import Reader

CACHE, POSTGRES = read_pb2.READ_SOURCE_CACHE, read_pb2.READ_SOURCE_POSTGRES


def one(dsn: str, statement: str) -> str:
    """One statement, committed; gives its one value."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return str(row[0])


def new_user(dsn: str) -> str:
    return one(dsn, "INSERT INTO users (email, display_name) VALUES ('a@b', 'n0') RETURNING id")


@asynccontextmanager
async def client_of(settings: BridgeSettings, redis_url: str = DEAD_REDIS) -> AsyncIterator[Client]:
    async with (
        serving(settings.nats_url, postgres_dsn=settings.postgres_dsn, redis_url=redis_url) as address,
        Client(address) as client,
    ):
        yield client


async def test_own_writes_are_read_from_the_cache(bridge_settings: BridgeSettings, redis_url: str) -> None:
    # By time alone a mark would come far too late: the bridge is asked for each.
    seldom = bridge_settings.model_copy(update={"mark_interval_s": 60, "heartbeat_s": 0})
    dsn = seldom.postgres_dsn
    async with running(seldom), client_of(seldom, redis_url) as client:
        user = new_user(dsn)
        found = await client.get_user(user)
        for number in range(1, 20):
            one(dsn, f"UPDATE users SET display_name = 'n{number}' WHERE id = '{user}' RETURNING id")
            token = one(dsn, "SELECT zephyr_cursor()")
            found = await client.get_user(user, min_cursor=token)
            assert (found.user.display_name, found.source) == (f"n{number}", CACHE)
        # A cursor that a read gave is a token too, and so is that of an event.
        assert (await client.get_user(user, min_cursor=found.cursor)).cursor == found.cursor
        async with client.subscribe(kinds=["user"], start=earliest()) as subscription:
            async for event in subscription:
                if event.event.user.display_name == "n19":
                    assert (await client.get_user(user, min_cursor=event.cursor)).source == CACHE
                    break


async def test_what_another_wrote_meanwhile_and_lent_is_not_taken_for_new(
    bridge_settings: BridgeSettings, redis_url: str
) -> None:
    dsn = bridge_settings.postgres_dsn
    user = new_user(dsn)
    async with running(bridge_settings), client_of(bridge_settings, redis_url) as client:
        for number in range(1, 6):
            one(dsn, f"UPDATE users SET display_name = 'n{number}' WHERE id = '{user}' RETURNING id")
            await client.get_user(user)
            one(dsn, f"UPDATE users SET display_name = 'm{number}' WHERE id = '{user}' RETURNING id")
            found = await client.get_user(user, min_cursor=one(dsn, "SELECT zephyr_cursor()"))
            assert found.user.display_name == f"m{number}"


async def test_without_a_bridge_postgres_is_read_in_time(
    bridge_settings: BridgeSettings, redis_url: str
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        user = new_user(dsn)
    async with client_of(bridge_settings, redis_url) as client:
        one(dsn, f"UPDATE users SET display_name = 'new' WHERE id = '{user}' RETURNING id")
        token = one(dsn, "SELECT zephyr_cursor()")
        began = time.monotonic()
        found = await client.get_user(user, min_cursor=token)
        assert (found.user.display_name, found.source) == ("new", POSTGRES)
        assert time.monotonic() - began < 15


async def test_the_calls_deadline_is_kept(bridge_settings: BridgeSettings, redis_url: str) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        user = new_user(dsn)
    token = text_to_bytes(one(dsn, "SELECT zephyr_cursor()"))
    async with (
        serving(bridge_settings.nats_url, postgres_dsn=dsn, redis_url=redis_url) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = read_pb2_grpc.ReadServiceStub(channel)
        request = read_pb2.GetUserRequest(id=user, min_cursor=token)
        # Nobody marks: the token is never passed, and Postgres has it.
        found = await stub.GetUser(request, timeout=3)
        assert (found.user.id, found.source) == (user, POSTGRES)


async def test_without_a_cache_postgres_is_read(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings), client_of(bridge_settings) as client:
        user = new_user(dsn)
        found = await client.get_user(user, min_cursor=one(dsn, "SELECT zephyr_cursor()"))
        assert (found.user.display_name, found.source) == ("n0", POSTGRES)


async def test_tokens_of_another_history_and_none(
    bridge_settings: BridgeSettings, redis_url: str, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings), client_of(bridge_settings, redis_url) as client:
        user = new_user(dsn)
        await stream_reader.caught_up(dsn)
        token = one(dsn, "SELECT zephyr_cursor()")
        mine = decode_token(text_to_bytes(token))
        assert isinstance(mine, WalCursor)
        assert mine.to_text() == token
        await client.get_user(user, min_cursor=token)
        others = WalCursor(str(int(mine.system_id) + 1), 1, 1)
        for other in (others.encode(), Cursor("0190a0000000000000aa", 1, 1).encode()):
            with pytest.raises(CursorReset, match="min_cursor is of") as raised:
                await client.get_user(user, min_cursor=other)
            assert raised.value.reason == "EPOCH_CHANGED"
            assert "without min_cursor" in raised.value.mend
        for garbage in (b"x", mine.encode()[:-1], mine.encode()[:-1] + b"\0"):
            with pytest.raises(CursorInvalid):
                await client.get_user(user, min_cursor=garbage)
        with pytest.raises(CursorInvalid, match="min_cursor"):
            await client.subscribe(start=after(mine.encode())).ready()


def test_it_is_called_after_the_commit(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn) as connection:
        connection.execute("SELECT 1 FROM users")
        before = decode_token(text_to_bytes(str(connection.execute("SELECT zephyr_cursor()").fetchone()[0])))  # type: ignore[index]
        connection.execute("INSERT INTO users (email) VALUES ('a')")
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="commit"):
            connection.execute("SELECT zephyr_cursor()")
        connection.rollback()
        connection.execute("INSERT INTO users (email) VALUES ('a')")
        connection.commit()
        (text,) = connection.execute("SELECT zephyr_cursor()").fetchone() or ("",)
        later = decode_token(text_to_bytes(text))
        (system_id,) = connection.execute(
            "SELECT system_identifier::text FROM pg_control_system()"
        ).fetchone() or ("",)
    assert isinstance(before, WalCursor)
    assert isinstance(later, WalCursor)
    assert later.lsn > before.lsn
    assert (later.system_id, later.timeline) == (system_id, 1)


def test_an_ordinary_role_may_call_it(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn) as connection:
        connection.execute("CREATE ROLE zephyr_ordinary")
        connection.commit()
        try:
            connection.execute("SET ROLE zephyr_ordinary")
            assert connection.execute("SELECT zephyr_cursor()").fetchone()
        finally:
            connection.rollback()
            connection.execute("RESET ROLE")
            connection.execute("DROP ROLE zephyr_ordinary")
            connection.commit()
