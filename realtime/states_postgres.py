"""The present states, read from Postgres in pages by key.

Each page is a short statement of its own. With workspaces it goes through them one by one, so
that an index leads through each.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence
from typing import Any, LiteralString

from psycopg import sql

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime.database import Database
from realtime.errors import Unavailable
from realtime.filters import Filter
from realtime.shared_reads import SharedReads
from realtime.state_rows import ROWS, StateRows, following_place, parameters
from realtime.states import StatePage

_SETTLE_S = 0.5
_SETTLE_REPLICATED_S = 5.0
_POLL_S = 0.01
_ROWS_A_TURN = 50
"""Rows become events in turns with everything else that the loop has to do."""


class PostgresStates:
    """A ``States`` of the tables in ``database``; ``readers`` pages are read at once at most. Subscribers who
    begin together ask for the same pages, and share what is read of them."""

    def __init__(self, database: Database, readers: int = 2) -> None:
        self.kinds = tuple(ROWS)
        self._database = database
        self._pages = SharedReads(readers)
        self._places = SharedReads(1)

    async def settle(self) -> None:
        await self._places.ask("settle", self._settle)

    async def position(self) -> int:
        return await self._places.ask("position", self._position)

    async def page(self, kind: str, wanted: Filter, after: str = "") -> StatePage:
        return await self._pages.ask((kind, wanted, after), lambda: self._page(kind, wanted, after))

    async def users(self, ids: Collection[str]) -> StatePage:
        wanted = tuple(sorted(ids))
        return await self._pages.ask(wanted, lambda: self._users(list(wanted)))

    async def _settle(self) -> None:
        rows = await self._rows(_BEGIN)
        is_standby, is_replicated = rows[0]
        if is_standby:
            raise Unavailable(
                "snapshots are read from a primary, and Postgres is a standby here",
                "set ZEPHYR_POSTGRES_DSN to the primary",
            )
        # A commit is in the log, and so may be in the stream, a moment before others see it; with
        # synchronous standbys, until these have it. Who is not done after that moment is in no commit.
        ((ours,),) = await self._rows("SELECT pg_current_xact_id()::text::bigint")
        loop = asyncio.get_running_loop()
        until = loop.time() + (_SETTLE_REPLICATED_S if is_replicated else _SETTLE_S)
        while loop.time() < until:
            ((oldest,),) = await self._rows("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            if oldest >= ours:
                return
            await asyncio.sleep(_POLL_S)
        ((waiting,),) = await self._rows(_WAIT_FOR_STANDBY)
        if is_replicated and waiting:
            raise Unavailable(
                "commits wait for a synchronous standby: what is in the stream cannot be read yet",
                "start the standby, or take it out of synchronous_standby_names",
            )

    async def _page(self, kind: str, wanted: Filter, after: str) -> StatePage:
        reading = ROWS[kind]
        ids = [entity for entity in sorted(wanted.entities) if _is_uuid(entity)] if wanted.entities else None
        if ids == []:
            return StatePage((), None)
        if not wanted.workspaces:
            events, place = await self._read(reading, reading.of_all, ids, after)
            return StatePage(events, place)
        # The workspace that is read now, and the place in it.
        workspaces = sorted(wanted.workspaces)
        workspace, _, place = after.partition("/") if after else (workspaces[0], "", "")
        events, more = await self._read(reading, reading.of_workspace, ids, place, workspace)
        if more is not None:
            return StatePage(events, f"{workspace}/{more}")
        following = workspaces.index(workspace) + 1
        return StatePage(events, f"{workspaces[following]}/" if following < len(workspaces) else None)

    async def _users(self, ids: Sequence[str]) -> StatePage:
        reading = ROWS["user"]
        events: list[Event] = []
        place: str | None = ""
        while place is not None:
            found, place = await self._read(reading, reading.of_all, ids, place)
            events += found
        return StatePage(events, None)

    async def _position(self) -> int:
        ((may,),) = await self._rows(_MAY_EMIT)
        rows = await self._rows(_EMIT, (fmt.PROGRESS,)) if may else await self._rows(_POSITION)
        return int(rows[0][0])

    async def _read(
        self,
        reading: StateRows,
        statement: sql.Composed,
        ids: Sequence[str] | None,
        after: str,
        workspace: str = "",
    ) -> tuple[list[Event], str | None]:
        rows = await self._rows(statement, parameters(ids, after, workspace))
        events: list[Event] = []
        for row in rows:
            events.append(reading.event(row))
            if len(events) % _ROWS_A_TURN == 0:
                await asyncio.sleep(0)
        return events, following_place(rows)

    async def _rows(self, statement: LiteralString | sql.Composed, values: Any = ()) -> list[Any]:
        return await self._database.rows(statement, values)


_BEGIN: LiteralString = "SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names') <> ''"
_WAIT_FOR_STANDBY: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
_MAY_EMIT: LiteralString = (
    "SELECT coalesce(bool_and(has_function_privilege(oid, 'EXECUTE')), false)"
    " FROM pg_proc WHERE proname = 'pg_logical_emit_message'"
)
# In a transaction, so that its commit brings it to the disk, where alone the bridge can read it; which
# is not made to wait for standbys.
_EMIT: LiteralString = (
    "SELECT pg_logical_emit_message(true, %s, '') - '0/0'::pg_lsn,"
    " set_config('synchronous_commit', 'local', true)"
)
_POSITION: LiteralString = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
