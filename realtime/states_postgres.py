"""The present states, read from Postgres in pages by key.

Each page is a short statement of its own. With workspaces it goes through them one by one, so
that an index leads through each. A row becomes the same message as the bridge makes of
it, field by field. How many bytes come at once is bounded in the statement itself, and a row that
is too large for an event is told of as ``rejected``, without its body ever being read.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from psycopg import sql

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.rejected_pb2 import Rejected
from protos.models.v1.membership_pb2 import Membership
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from protos.models.v1.workspace_pb2 import Workspace
from protos.schema_name import schema_name
from realtime.database import Database
from realtime.errors import Unavailable
from realtime.filters import Filter
from realtime.states import PAGE_BYTES, PAGE_ITEMS, StatePage

_EVENT_BYTES = 8 * 1024 * 1024
"""The largest event, as the bridge has it."""
_SETTLE_S = 0.5
_SETTLE_REPLICATED_S = 5.0
_POLL_S = 0.01

# - extract(epoch …) is an exact numeric, infinity too; the bounds turn ±infinity into the
#   least and the greatest int64.
# - jsonb_each_text gives a text value as it is and any other as its JSON text, but a JSON
#   null as NULL.
_COMMON: dict[str, LiteralString] = {
    "version": "version",
    "created_at": "greatest(least(extract(epoch FROM created_at) * 1000000, 9223372036854775807),"
    " -9223372036854775808)::bigint",
    "updated_at": "greatest(least(extract(epoch FROM updated_at) * 1000000, 9223372036854775807),"
    " -9223372036854775808)::bigint",
    "metadata": "CASE WHEN size > %(largest)s THEN '{}' ELSE (SELECT coalesce(jsonb_object_agg(key,"
    " coalesce(value, 'null')), '{}') FROM jsonb_each_text(metadata)) END",
}

# Of a page's rows the columns stay as they are stored until those that are too many in bytes are left out.
_PAGE: LiteralString = """
SELECT {fields}, place::text, size, found, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint
  FROM (SELECT page.*, sum(size) OVER (ORDER BY place) - size AS before, count(*) OVER () AS found
          FROM (SELECT {place} AS place, {columns}, {size} AS size FROM {table} WHERE {condition}
                 ORDER BY {place} LIMIT %(limit)s) AS page) AS sized
 WHERE before < %(bytes)s ORDER BY place
"""


@dataclass(frozen=True, slots=True)
class _Table:
    """How the rows of a kind are read. ``fields`` are the message's, as expressions over ``columns``;
    ``sized`` the columns whose bytes count. ``within`` is how a workspace's rows are found."""

    kind: str
    table: LiteralString
    message: type[Message]
    fields: dict[str, LiteralString]
    columns: Sequence[LiteralString]
    sized: Sequence[LiteralString]
    workspace: str
    within: tuple[LiteralString, LiteralString, LiteralString]
    """The table or join, the condition, and the column that orders a workspace's rows."""

    def statement(self, place: LiteralString, table: LiteralString, condition: LiteralString) -> sql.Composed:
        largest = "CASE WHEN size > %(largest)s THEN '' ELSE {} END"
        expressions = [
            sql.SQL(largest).format(sql.SQL(text)) if name in self.sized else sql.SQL(text)
            for name, text in (self.fields | _COMMON).items()
        ]
        size = [sql.SQL("octet_length(t.{})").format(sql.SQL(name)) for name in self.sized]
        columns = (*self.columns, "version", "created_at", "updated_at", "metadata")
        return sql.SQL(_PAGE).format(
            fields=sql.SQL(", ").join(expressions),
            place=sql.SQL(place),
            columns=sql.SQL(", ").join([sql.SQL("t.{}").format(sql.SQL(name)) for name in columns]),
            size=sql.SQL(" + ").join([*size, sql.SQL("pg_column_size(t.metadata)")]),
            table=sql.SQL(table),
            condition=sql.SQL(condition),
        )


_TABLES = (
    _Table(
        "workspace",
        "public.workspaces",
        Workspace,
        {"id": "id::text", "slug": "slug", "name": "name"},
        ("id", "slug", "name"),
        ("slug", "name"),
        "id",
        ("public.workspaces AS t", "t.id = %(workspace)s::uuid", "t.id"),
    ),
    _Table(
        "user",
        "public.users",
        User,
        {"id": "id::text", "email": "email", "display_name": "display_name"},
        ("id", "email", "display_name"),
        ("email", "display_name"),
        "",
        (
            "public.memberships AS m JOIN public.users AS t ON t.id = m.user_id",
            "m.workspace_id = %(workspace)s::uuid",
            "m.user_id",
        ),
    ),
    _Table(
        "membership",
        "public.memberships",
        Membership,
        {
            "id": "id::text",
            "workspace_id": "workspace_id::text",
            "user_id": "user_id::text",
            "role": "role",
        },
        ("id", "workspace_id", "user_id", "role"),
        ("role",),
        "workspace_id",
        ("public.memberships AS t", "t.workspace_id = %(workspace)s::uuid", "t.user_id"),
    ),
    _Table(
        "note",
        "public.notes",
        Note,
        {
            "id": "id::text",
            "workspace_id": "workspace_id::text",
            "author_id": "coalesce(author_id::text, '')",
            "title": "title",
            "body": "body",
        },
        ("id", "workspace_id", "author_id", "title", "body"),
        ("title", "body"),
        "workspace_id",
        ("public.notes AS t", "t.workspace_id = %(workspace)s::uuid", "t.id"),
    ),
)


class _Reading:
    """The statements of a kind, made once."""

    def __init__(self, table: _Table) -> None:
        self.table = table
        self.names = tuple(table.fields | _COMMON)
        self.schema = schema_name(cast("Descriptor", table.message.DESCRIPTOR))
        source, within, place = table.within
        ids: LiteralString = (
            "(%(ids)s::uuid[] IS NULL OR t.id = ANY(%(ids)s::uuid[])) AND (%(after)s::uuid IS NULL OR "
        )
        self.of_all = table.statement("t.id", table.table + " AS t", ids + "t.id > %(after)s::uuid)")
        self.of_workspace = table.statement(
            place, source, within + " AND " + ids + place + " > %(after)s::uuid)"
        )

    def event(self, row: Sequence[Any]) -> Event:
        """A row as an event. Its size was asked of Postgres; what it comes to as a message is known here."""
        fields = dict(zip(self.names, row, strict=False))
        size, time = row[-3], row[-1]
        kind = self.table.kind
        workspace = fields[self.table.workspace] if self.table.workspace else fmt.NONE
        event = Event(
            type=f"{kind}.{fmt.READ}",
            subject=fields["id"],
            time=time,
            workspace_id=workspace,
            data_schema=self.schema,
        )
        if size <= _EVENT_BYTES:
            getattr(event, kind).CopyFrom(self.table.message(**fields))
            if event.ByteSize() <= _EVENT_BYTES:
                return event
            event.ClearField("data")
        event.type = f"{kind}.{fmt.REJECTED}"
        event.rejected.CopyFrom(
            Rejected(
                reason=Rejected.REASON_TOO_LARGE,
                message=f"{self.table.table} {fields['id']}: the row is over {_EVENT_BYTES} bytes",
                verb=fmt.READ,
                table=self.table.table,
            )
        )
        return event


class PostgresStates:
    """A ``States`` of the tables in ``database``; ``readers`` of its statements run at once at most."""

    def __init__(self, database: Database, readers: int = 2) -> None:
        self.kinds = tuple(table.kind for table in _TABLES)
        self._database = database
        self._readers = asyncio.Semaphore(readers)
        self._readings = {table.kind: _Reading(table) for table in _TABLES}

    async def settle(self) -> None:
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

    async def page(self, kind: str, wanted: Filter, after: str = "") -> StatePage:
        reading = self._readings[kind]
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

    async def users(self, ids: Collection[str]) -> Sequence[Event]:
        reading = self._readings["user"]
        events: list[Event] = []
        place: str | None = ""
        while place is not None:
            found, place = await self._read(reading, reading.of_all, sorted(ids), place)
            events += found
        return events

    async def position(self) -> int:
        ((may,),) = await self._rows(_MAY_EMIT)
        rows = await self._rows(_EMIT, (fmt.PROGRESS,)) if may else await self._rows(_POSITION)
        return int(rows[0][0])

    async def _read(
        self,
        reading: _Reading,
        statement: sql.Composed,
        ids: Sequence[str] | None,
        after: str,
        workspace: str = "",
    ) -> tuple[list[Event], str | None]:
        parameters = {
            "ids": ids,
            "after": after or None,
            "workspace": workspace or None,
            "limit": PAGE_ITEMS,
            "bytes": PAGE_BYTES,
            "largest": _EVENT_BYTES,
        }
        rows = await self._rows(statement, parameters)
        events = [reading.event(row) for row in rows]
        if not rows:
            return events, None
        place, _, found, _ = rows[-1][-4:]
        return events, place if len(rows) < found or found == PAGE_ITEMS else None

    async def _rows(self, statement: LiteralString | sql.Composed, parameters: Any = ()) -> list[Any]:
        async with self._readers:
            return await self._database.rows(statement, parameters)


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
