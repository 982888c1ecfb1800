"""The proofs find what differs: real Postgres, NATS and Valkey, the stream written by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
import psycopg
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from protos.models.v1.workspace_pb2 import Workspace
from realtime.cache import Put, RedisCache
from realtime.cursor import Cursor
from zephyr.console import CommandError
from zephyr.demo.fold import Fold
from zephyr.demo.proof import Comparison, prove_cache, prove_state
from zephyr.demo.stream import open_stream

EPOCH = "0190a0000000000000aa"
LIMIT_S = 0.5
Model = Workspace | User | Note


@dataclass
class Setup:
    """A database and a stream; the test writes to both."""

    dsn: str
    nats_url: str
    stream: JetStreamContext

    def sql(self, statement: str, *parameters: object) -> str:
        """Runs it, and gives the first value that it returns."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(statement, parameters).fetchone()
        assert row is not None
        return str(row[0])

    async def publish(self, kind: str, entity: str, verb: str, model: Model | None = None) -> int:
        event = Event(**{kind: model}) if model is not None else Event()  # type: ignore[arg-type]
        subject = str(fmt.Subject(fmt.NONE, kind, entity))
        answer = await self.stream.publish(subject, event.SerializeToString(), headers={fmt.VERB: verb})
        return answer.seq

    async def prove(self, fold: Fold | None = None) -> Comparison:
        async with open_stream(self.nats_url, "ZEPHYR") as reader:
            assert reader.epoch == EPOCH
            return await prove_state(reader, fold if fold is not None else Fold(), self.dsn, LIMIT_S)

    def user(self, email: str) -> User:
        identity = self.sql("INSERT INTO users (email) VALUES (%s) RETURNING id", email)
        created = int(
            self.sql(
                "SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM users WHERE id = %s", identity
            )
        )
        return User(id=identity, email=email, version=1, created_at=created, updated_at=created)


@pytest.fixture
async def setup(migrated_dsn: str, nats_url: str) -> AsyncIterator[Setup]:
    connection = await nats.connect(nats_url)
    stream = connection.jetstream()
    await stream.add_stream(
        StreamConfig(name="ZEPHYR", subjects=[fmt.SUBJECTS], metadata={fmt.EPOCH_KEY: EPOCH})
    )
    yield Setup(migrated_dsn, nats_url, stream)
    await connection.close()


async def test_equal(setup: Setup) -> None:
    user = setup.user("a@x")
    await setup.publish("user", user.id, fmt.CREATED, user)
    comparison = await setup.prove()
    assert comparison.is_equal
    assert comparison.compared == 1


async def test_a_field_that_differs_is_named(setup: Setup) -> None:
    user = setup.user("a@x")
    user.created_at += 1
    await setup.publish("user", user.id, fmt.CREATED, user)
    comparison = await setup.prove()
    assert comparison.count == 1
    assert comparison.shown[0].startswith(f"user {user.id} created_at: the stream {user.created_at}")


async def test_what_only_one_side_has_is_named(setup: Setup) -> None:
    kept, ghost = setup.user("kept@x"), User(id="22222222-2222-4222-8222-222222222222")
    await setup.publish("user", ghost.id, fmt.CREATED, ghost)
    comparison = await setup.prove()
    assert sorted(comparison.shown) == sorted(
        [
            f"user {kept.id} is in the table and not in the stream",
            f"user {ghost.id} is in the stream and not in the table",
        ]
    )


async def test_long_texts_metadata_and_the_verbs(setup: Setup) -> None:
    workspace = setup.sql(
        "INSERT INTO workspaces (slug, name, created_at, updated_at)"
        " VALUES ('s', 's', to_timestamp(1), to_timestamp(1)) RETURNING id"
    )
    body = "豌豆" * 5000
    note = setup.sql(
        "INSERT INTO notes (workspace_id, title, body, metadata, created_at, updated_at)"
        " VALUES (%s, 't', %s, %s, to_timestamp(1.000001), to_timestamp(2)) RETURNING id",
        workspace,
        body,
        '{"a": "text", "b": [1, {"c": null}], "d": null}',
    )
    expected = Workspace(
        id=workspace, slug="s", name="s", version=1, created_at=1_000_000, updated_at=1_000_000
    )
    await setup.publish("note", note, fmt.CREATED, Note(id=note))
    await setup.publish("workspace", workspace, fmt.CREATED, expected)
    await setup.publish("note", fmt.NONE, fmt.TRUNCATED)
    state = Note(
        id=note,
        workspace_id=workspace,
        title="t",
        body=body,
        version=1,
        created_at=1_000_001,
        updated_at=2_000_000,
        metadata={"a": "text", "b": '[1, {"c": null}]', "d": "null"},
    )
    await setup.publish("note", note, fmt.LEFT, Note(id=note))
    await setup.publish("note", note, fmt.ENTERED, state)
    other = "22222222-2222-4222-8222-222222222222"
    await setup.publish("note", other, fmt.CREATED, Note(id=other))
    await setup.publish("note", other, fmt.DELETED, Note(id=other))
    comparison = await setup.prove()
    assert comparison.shown == []
    assert comparison.compared == 2


async def test_an_evicted_beginning_is_said_and_not_a_difference(setup: Setup) -> None:
    old, new = setup.user("old@x"), setup.user("new@x")
    await setup.publish("user", old.id, fmt.CREATED, old)
    sequence = await setup.publish("user", new.id, fmt.CREATED, new)
    await setup.stream.purge_stream("ZEPHYR", seq=sequence)
    comparison = await setup.prove()
    assert (comparison.is_equal, comparison.compared, comparison.unproven) == (True, 1, 1)


async def test_a_stream_that_is_not_there_is_one_error(nats_url: str) -> None:
    with pytest.raises(CommandError, match="the stream cannot be read from NATS"):
        async with open_stream(nats_url, "ZEPHYR"):
            pass


async def test_the_cache_against_the_stream(redis_url: str) -> None:
    fold = Fold()
    users = [User(id=f"{number}", email=f"{number}@x", version=1) for number in range(40)]
    for sequence, user in enumerate(users, 1):
        subject = str(fmt.Subject(fmt.NONE, "user", user.id))
        fold.take(sequence, subject, fmt.CREATED, Event(user=user).SerializeToString())
    cache = RedisCache(redis_url)
    try:
        behind = await prove_cache(fold, EPOCH, redis_url, LIMIT_S)
        assert behind.shown == ["the cache stands at sequence 0, the stream's last note or user at 40"]

        writes = [
            Put("user", user.id, Cursor(EPOCH, sequence), user.SerializeToString())
            for sequence, user in enumerate(users, 1)
        ]
        await cache.apply(writes, None, Cursor(EPOCH, 40))
        equal = await prove_cache(fold, EPOCH, redis_url, LIMIT_S)
        assert (equal.is_equal, equal.compared) == (True, 40)

        wrong = User(id="7", email="wrong@x", version=1)
        await cache.apply([Put("user", "7", Cursor(EPOCH, 41), wrong.SerializeToString())])
        await cache.apply([Put("user", "8", Cursor(EPOCH, 41), None)])
        found = await prove_cache(fold, EPOCH, redis_url, LIMIT_S)
        assert found.shown == [
            "user 7 email: the stream '7@x', the cache 'wrong@x'",
            "user 8 is in the stream and not in the cache",
        ]
    finally:
        await cache.close()
