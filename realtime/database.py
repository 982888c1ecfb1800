"""Postgres itself, the source of truth: the latest state of one entity, and short reads of others.

A row becomes the same message as the bridge makes of it, field by field, so a reader
cannot tell where it was read. A few connections are kept, opened when first wanted and
anew when they broke; waiting, connecting and reading are all bounded in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.errors import SettingInvalid, Unavailable

# Common to both statements:
# - extract(epoch …) is an exact numeric, infinity too; the bounds turn ±infinity into the
#   least and the greatest int64.
# - jsonb_each_text gives a text value as it is and any other as its JSON text, but a JSON
#   null as NULL.

NOTE_BY_ID = """
SELECT id::text, workspace_id::text, coalesce(author_id::text, ''), title, body, version,
       greatest(least(extract(epoch FROM created_at) * 1000000, 9223372036854775807),
                -9223372036854775808)::bigint,
       greatest(least(extract(epoch FROM updated_at) * 1000000, 9223372036854775807),
                -9223372036854775808)::bigint,
       (SELECT coalesce(jsonb_object_agg(key, coalesce(value, 'null')), '{}')
          FROM jsonb_each_text(metadata))
  FROM public.notes WHERE id = %s::uuid
"""
"""One note: the fields of Note in the order that ``note`` takes them."""

USER_BY_ID = """
SELECT id::text, email, display_name, version,
       greatest(least(extract(epoch FROM created_at) * 1000000, 9223372036854775807),
                -9223372036854775808)::bigint,
       greatest(least(extract(epoch FROM updated_at) * 1000000, 9223372036854775807),
                -9223372036854775808)::bigint,
       (SELECT coalesce(jsonb_object_agg(key, coalesce(value, 'null')), '{}')
          FROM jsonb_each_text(metadata))
  FROM public.users WHERE id = %s::uuid
"""
"""One user: the fields of User in the order that ``user`` takes them."""

_MAX_CONNECTIONS = 4
_CANCEL_S = 0.5
_ROWS_A_TURN = 50
"""Rows are converted in turns with everything else that the loop has to do."""
_Statement = LiteralString | sql.Composed
_Parameters = Sequence[Any] | Mapping[str, Any]
_log = structlog.get_logger(__name__)


class Database:
    """Short reads at ``dsn``; ``timeout_s`` bounds each step of a read, in seconds.

    Raises:
        SettingInvalid: the DSN is malformed.
    """

    def __init__(self, dsn: str, timeout_s: float = 3.0) -> None:
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError as exc:
            raise SettingInvalid(
                f"the address of Postgres is malformed: {_cause(exc)}",
                "set ZEPHYR_POSTGRES_DSN to postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
            ) from exc
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._is_down = False
        self._is_closed = False
        # The place used last is taken first, so that few connections serve a light load.
        self._places: asyncio.LifoQueue[_Place] = asyncio.LifoQueue()
        for _ in range(_MAX_CONNECTIONS):
            self._places.put_nowait(_Place())

    async def note(self, note_id: str) -> Note | None:
        """The note as committed now; None when there is none. ``note_id`` is a UUID.

        Raises:
            Unavailable: Postgres cannot be reached, or does not answer in time.
        """
        row = await self._row(NOTE_BY_ID, note_id)
        if row is None:
            return None
        entity_id, workspace_id, author_id, title, body, version, created_at, updated_at, metadata = row
        return Note(
            id=entity_id,
            workspace_id=workspace_id,
            author_id=author_id,
            title=title,
            body=body,
            version=version,
            created_at=created_at,
            updated_at=updated_at,
            metadata=metadata,
        )

    async def user(self, user_id: str) -> User | None:
        """The user as committed now; None when there is none. ``user_id`` is a UUID.

        Raises:
            Unavailable: Postgres cannot be reached, or does not answer in time.
        """
        row = await self._row(USER_BY_ID, user_id)
        if row is None:
            return None
        entity_id, email, display_name, version, created_at, updated_at, metadata = row
        return User(
            id=entity_id,
            email=email,
            display_name=display_name,
            version=version,
            created_at=created_at,
            updated_at=updated_at,
            metadata=metadata,
        )

    async def rows(self, statement: _Statement, parameters: _Parameters = ()) -> list[TupleRow]:
        """What a statement gives, in a transaction of its own. It is planned for its very parameters.

        Raises:
            Unavailable: Postgres cannot be reached, or does not answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                place = await self._places.get()
            try:
                rows = await self._rows_at(place, statement, parameters)
            except BaseException:
                # Also when cancelled: a connection in the middle of a statement is of no use to others.
                await place.clear()
                raise
            finally:
                if self._is_closed:
                    await place.clear()
                self._places.put_nowait(place)
        except (psycopg.Error, OSError) as exc:  # the builtin TimeoutError is an OSError
            raise self._unavailable(exc) from exc
        if self._is_down:
            self._is_down = False
            _log.info("Postgres answers again")
        return rows

    async def close(self) -> None:
        """Closes the connections; those in use when their read ends."""
        self._is_closed = True
        places = [self._places.get_nowait() for _ in range(self._places.qsize())]
        for place in places:
            await place.clear()
            self._places.put_nowait(place)

    async def _row(self, statement: LiteralString, entity_id: str) -> TupleRow | None:
        rows = await self.rows(statement, (entity_id,))
        return rows[0] if rows else None

    async def _rows_at(self, place: _Place, statement: _Statement, parameters: _Parameters) -> list[TupleRow]:
        if place.connection is not None:
            try:
                return await self._fetch(place.connection, statement, parameters)
            except psycopg.OperationalError:
                if not place.connection.closed:
                    raise
                # It was kept while the server was restarted: a new one is tried once.
                await place.clear()
        place.connection = await self._connect()
        return await self._fetch(place.connection, statement, parameters)

    async def _connect(self) -> AsyncConnection[TupleRow]:
        async with asyncio.timeout(self._timeout_s):
            return await AsyncConnection.connect(
                self._dsn, autocommit=True, client_encoding="utf8", application_name="zephyr-read"
            )

    async def _fetch(
        self, connection: AsyncConnection[TupleRow], statement: _Statement, parameters: _Parameters
    ) -> list[TupleRow]:
        # The inner limit lets psycopg cancel the statement in the server; the outer one ends
        # that too, for a server that hangs.
        async with asyncio.timeout(self._timeout_s + _CANCEL_S), asyncio.timeout(self._timeout_s):
            prepare = None if isinstance(statement, str) else False
            cursor = await connection.execute(statement, parameters, prepare=prepare)
            rows: list[TupleRow] = []
            while found := await cursor.fetchmany(_ROWS_A_TURN):
                rows += found
                await asyncio.sleep(0)
            return rows

    def _unavailable(self, exc: Exception) -> Unavailable:
        """The one translation of psycopg's errors. The cause with its addresses goes to the log alone."""
        if not self._is_down:
            self._is_down = True
            _log.warning("Postgres cannot be read", cause=_cause(exc))
        if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            return Unavailable("the database lacks Zephyr's tables", "run zephyr migrate")
        if isinstance(exc, psycopg.errors.InsufficientPrivilege):
            return Unavailable("Postgres refuses the server's user", "grant it SELECT on the tables")
        return Unavailable(
            "Postgres cannot be reached now", "try again; see the server's log when it stays so"
        )


class _Place:
    """Room for one connection."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: AsyncConnection[TupleRow] | None = None

    async def clear(self) -> None:
        """Closes the connection, a broken one too."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


def _cause(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).split("\n", 1)[0]
