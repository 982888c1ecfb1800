"""Rows of Zephyr's tables as states: the statements that read a page of them, and what a row becomes.

A row becomes the same message as the bridge makes of it, field by field. How many bytes come at once
is bounded in the statement itself, and a row that is too large for an event is told of as
``rejected``, without its body ever being read. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import orjson
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
from realtime.states import PAGE_BYTES, PAGE_ITEMS

EVENT_BYTES = 8 * 1024 * 1024
"""The largest event, as the bridge has it."""

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
    "metadata": "CASE WHEN size > %(largest)s OR metadata = '{}' THEN NULL ELSE (SELECT jsonb_object_agg(key,"
    " coalesce(value, 'null'))::text FROM jsonb_each_text(metadata)) END",
}

# Of a page's rows the columns stay as they are stored until those that are too many in bytes are left out.
_PAGE: LiteralString = """
SELECT {fields}, place::text, size, found, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint
  FROM (SELECT page.*, sum(size) OVER (ORDER BY place) - size AS before, count(*) OVER () AS found
          FROM (SELECT {place} AS place, {columns}, {size} AS size FROM {table} WHERE {condition}
                 ORDER BY {place} LIMIT %(limit)s) AS page) AS sized
 WHERE before < %(bytes)s ORDER BY sized.place
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


class StateRows:
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
        size, time, metadata = row[-3], row[-1], fields["metadata"]
        fields["metadata"] = orjson.loads(metadata) if metadata is not None else None
        kind = self.table.kind
        workspace = fields[self.table.workspace] if self.table.workspace else fmt.NONE
        event = Event(
            type=f"{kind}.{fmt.READ}",
            subject=fields["id"],
            time=time,
            workspace_id=workspace,
            data_schema=self.schema,
        )
        if size <= EVENT_BYTES:
            getattr(event, kind).CopyFrom(self.table.message(**fields))
            if event.ByteSize() <= EVENT_BYTES:
                return event
            event.ClearField("data")
        event.type = f"{kind}.{fmt.REJECTED}"
        event.rejected.CopyFrom(
            Rejected(
                reason=Rejected.REASON_TOO_LARGE,
                message=f"{self.table.table} {fields['id']}: the row is over {EVENT_BYTES} bytes",
                verb=fmt.READ,
                table=self.table.table,
            )
        )
        return event


ROWS = {table.kind: StateRows(table) for table in _TABLES}
"""By kind, in the order in which they are read."""


def parameters(ids: Sequence[str] | None, after: str, workspace: str) -> dict[str, Any]:
    """What a statement is given: only these ids, only after this place, only of this workspace."""
    return {
        "ids": ids,
        "after": after or None,
        "workspace": workspace or None,
        "limit": PAGE_ITEMS,
        "bytes": PAGE_BYTES,
        "largest": EVENT_BYTES,
    }


def following_place(rows: Sequence[Sequence[Any]]) -> str | None:
    """After which place there may be more than a statement gave; None when there is none."""
    if not rows:
        return None
    place, _, found, _ = rows[-1][-4:]
    return str(place) if len(rows) < found or found == PAGE_ITEMS else None
