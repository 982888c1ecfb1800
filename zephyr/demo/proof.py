"""Holds the stream against the tables, and the cache against the stream.

The stream, replayed into a table, must equal ``SELECT *`` of the database, and so must what the
cache gives for notes and users, once its watermark has passed the stream's last event of them.
Where the stream has lost its beginning to its limits, rows that it no longer tells of cannot be
held against it: they are counted and said, not passed over in silence.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import psycopg

from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.cache import RedisCache
from realtime.errors import RealtimeError
from zephyr.console import CommandError
from zephyr.demo import sql
from zephyr.demo.fold import FIELDS, Fold, State, state_of
from zephyr.demo.stream import StreamReader

_SHOWN = 5
_PAUSE_S = 0.1
_CONNECT_TIMEOUT_S = 10
_ROWS_AT_ONCE = 500
_READS_AT_ONCE = 16
"""Not more than the cache's connections."""


@dataclass(slots=True)
class Comparison:
    """What was compared, and what differs: the first few in words, all of them in ``count``."""

    compared: int = 0
    unproven: int = 0
    """Rows that the stream no longer tells of."""
    count: int = 0
    shown: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        return self.count == 0

    def differ(self, words: str) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(words)


async def prove_state(reader: StreamReader, fold: Fold, dsn: str, limit_s: float) -> Comparison:
    """Compares the stream with the tables, again for ``limit_s`` seconds while others still write.

    Raises:
        CommandError: Postgres or NATS cannot be reached.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit_s
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
            ) as connection:
                await connection.execute(sql.BEGIN_SNAPSHOT)
                await connection.execute("SELECT 1")  # The snapshot is taken here, before the stream's end.
                await reader.read_into(fold)
                comparison = await _compare_tables(connection, fold, reader.is_evicted)
                await connection.execute("COMMIT")
        except psycopg.Error as exc:
            cause = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise CommandError(
                f"the tables cannot be read from Postgres: {cause}", "see that it runs", 3
            ) from exc
        if comparison.is_equal or clock() >= deadline:
            return comparison
        await asyncio.sleep(_PAUSE_S)


async def _compare_tables(connection: psycopg.AsyncConnection, fold: Fold, is_evicted: bool) -> Comparison:
    result = Comparison()
    for kind, statement in sql.ROWS_OF.items():
        states, seen = fold.states[kind], 0
        async with connection.cursor(name=f"all_{kind}") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            await cursor.execute(statement)
            async for entity_id, *values in cursor:
                state = states.get(entity_id)
                if state is not None:
                    seen += 1
                    result.compared += 1
                    _compare(result, kind, entity_id, ("the stream", state), ("the table", tuple(values)))
                elif is_evicted and entity_id not in fold.deleted[kind]:
                    result.unproven += 1
                else:
                    result.differ(f"{kind} {entity_id} is in the table and not in the stream")
        if seen < len(states):
            await _find_surplus(connection, kind, states, result)
    return result


async def _find_surplus(
    connection: psycopg.AsyncConnection, kind: str, states: dict[str, State], result: Comparison
) -> None:
    """Entities that the stream has and the table has not."""
    surplus = set(states)
    async with connection.cursor(name=f"ids_{kind}") as cursor:
        await cursor.execute(sql.IDS_OF[kind])
        async for (entity_id,) in cursor:
            surplus.discard(entity_id)
    for entity_id in sorted(surplus):
        result.differ(f"{kind} {entity_id} is in the stream and not in the table")


async def prove_cache(fold: Fold, epoch: str, url: str, limit_s: float) -> Comparison:
    """Compares what the cache gives for notes and users with the stream.

    ``limit_s`` is how long the cache may take to come after, in seconds.

    Raises:
        CommandError: the cache cannot be reached.
    """
    cache = RedisCache(url, read_timeout_s=limit_s)
    try:
        result = Comparison()
        wanted = max(fold.last_sequence["note"], fold.last_sequence["user"])
        reached = await _wait_for_watermark(cache, epoch, wanted, limit_s)
        if reached < wanted:
            result.differ(
                f"the cache stands at sequence {reached}, the stream's last note or user at {wanted}"
            )
            return result
        for kind, model in (("note", Note), ("user", User)):
            entities = [*fold.states[kind], *fold.deleted[kind]]
            for begin in range(0, len(entities), _READS_AT_ONCE):
                ids = entities[begin : begin + _READS_AT_ONCE]
                found = await asyncio.gather(*(cache.get(kind, entity_id) for entity_id in ids))
                for entity_id, cached in zip(ids, found, strict=True):
                    result.compared += 1
                    state = fold.states[kind].get(entity_id)
                    data = cached.model if cached is not None else None
                    if state is None and data is None:
                        continue
                    held = state_of(kind, model.FromString(data)) if data is not None else None
                    _compare(result, kind, entity_id, ("the stream", state), ("the cache", held))
        return result
    except RealtimeError as exc:
        raise CommandError(exc.message, exc.mend, exc.exit_code) from exc
    finally:
        await cache.close()


async def _wait_for_watermark(cache: RedisCache, epoch: str, wanted: int, limit_s: float) -> int:
    """The sequence up to which the cache is filled, once that is ``wanted`` or the time is over."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit_s
    while True:
        watermark = await cache.watermark()
        reached = watermark.sequence if watermark is not None and watermark.epoch == epoch else 0
        if reached >= wanted or clock() >= deadline:
            return reached
        await asyncio.sleep(_PAUSE_S)


def _compare(
    result: Comparison,
    kind: str,
    entity_id: str,
    left: tuple[str, State | None],
    right: tuple[str, State | None],
) -> None:
    """Notes the first field that differs."""
    (left_name, left_state), (right_name, right_state) = left, right
    if left_state == right_state:
        return
    if left_state is None or right_state is None:
        there, gone = (left_name, right_name) if right_state is None else (right_name, left_name)
        result.differ(f"{kind} {entity_id} is in {there} and not in {gone}")
        return
    for name, one, other in zip(FIELDS[kind], left_state, right_state, strict=True):
        if one != other:
            result.differ(f"{kind} {entity_id} {name}: {left_name} {one!r:.80}, {right_name} {other!r:.80}")
            return
