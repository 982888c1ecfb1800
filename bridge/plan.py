"""How the rows of one relation version become messages.

Converters, the columns' places and the fixed parts of the events are found once; a row then
costs a pass over its columns and a join. ``Plan.message`` writes the envelope's fields in
the order of their numbers, as protobuf itself does, so that the bytes are those that
``Event.SerializeToString`` would give (a property test holds it to that).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from bridge.change import Begin, Relation, Unchanged, Value
from bridge.errors import EventRejected, EventTooLarge
from bridge.fields import Emitter, emitter
from bridge.fit import ALWAYS_TOKENS, FittedTable
from bridge.mapping import schema_name
from bridge.outgoing import Moment, Outgoing
from bridge.versions import version_of
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.wire import delimited, varint

Row = tuple[Value, ...]

# The WAL keeps the row as it was written: correcting it later does not change that.
ROW_MEND = "correct the mapping (docs/mapping.md), or correct the row and begin anew: zephyr bridge new-epoch"
OTHER = "other"
_ENDS = frozenset((fmt.DELETED, fmt.LEFT))
_ENVELOPE_BYTES = 1024
"""What an event has beside its data, at most, as a rough measure."""
_TYPE_URL = "type.googleapis.com/"
_ANY_TYPE, _ANY_VALUE = 1, 2
"""Field numbers of google.protobuf.Any."""
_ID_TAG, _SUBJECT_TAG, _WORKSPACE_TAG = (
    varint(Event.DESCRIPTOR.fields_by_name[name].number << 3 | 2)
    for name in ("id", "subject", "workspace_id")
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of an encoder share."""

    system_id: str
    database: str
    epoch: str
    max_event_bytes: int
    id_prefix: str
    """An event's id up to the commit LSN."""


class Draft(NamedTuple):
    """A message that lacks its place in the transaction: ``row`` is the state that it is about,
    ``changed`` names fields. ``row`` is empty for a truncation. ``fault`` says why the row cannot
    become a message, where that is known already."""

    plan: Plan
    verb: str
    row: Row
    changed: tuple[str, ...]
    fault: EventRejected | None = None

    def finish(self, begin: Begin, index: int, count: int = 0) -> Outgoing:
        """The message at ``index`` of its transaction; ``count`` is 0 but on the last one.

        Raises:
            EventRejected: the row cannot become an event; EventTooLarge if it is over the limit.
        """
        return self.plan.message(self, Moment(begin, self.plan.origin.id_prefix), index, count)


class Plan:
    """The plan of one relation version. ``mismatches`` says why its rows cannot become events, one
    line each: each of them is rejected then. ``is_older``: its rows are from before the mapping was checked;
    ``absent`` are the mapped columns that they lack.
    """

    def __init__(
        self, table: FittedTable, relation: Relation, origin: Origin, is_older: bool = False
    ) -> None:
        mapping = table.mapping
        version = version_of(table, relation, is_older)
        self.mismatches = version.mismatches
        self.absent = version.absent
        self.is_older = is_older
        place = {column.name: index for index, column in enumerate(relation.columns)}
        self.origin = origin
        self.table = mapping.name
        self.kind = mapping.kind
        self.columns = relation.columns
        self.schema = schema = schema_name(mapping.message)
        self.source = source = f"/postgres/{origin.system_id}/{origin.database}/{mapping.name}"
        self._data_tag = varint(Event.DESCRIPTOR.fields_by_name[mapping.envelope_field].number << 3 | 2)
        # What a message that has no field of its own travels in.
        self._any_type = (
            delimited(_ANY_TYPE, (_TYPE_URL + mapping.message.full_name).encode())
            if mapping.envelope_field == OTHER
            else b""
        )
        self._schema_field = delimited(Event.DATA_SCHEMA_FIELD_NUMBER, schema.encode())
        # By verb: the fields of type and source, and the headers between id and place.
        self._of_verb = {
            verb: (
                delimited(Event.TYPE_FIELD_NUMBER, f"{mapping.kind}.{verb}".encode())
                + delimited(Event.SOURCE_FIELD_NUMBER, source.encode()),
                f"\r\n{fmt.VERB}: {verb}\r\n{fmt.SCHEMA}: {schema}\r\n{fmt.COMMIT}: ",
            )
            for verb in fmt.ROW_VERBS
        }
        # A version without key or workspace is one of those whose rows are rejected.
        self._key = place.get(mapping.key, -1)
        self._key_column = mapping.key
        self._key_is_token = table.columns[mapping.key].base_oid in ALWAYS_TOKENS
        self._workspace = place.get(mapping.workspace, -1) if mapping.workspace is not None else None
        self._workspace_column = mapping.workspace or ""
        self._workspace_is_token = (
            mapping.workspace is not None and table.columns[mapping.workspace].base_oid in ALWAYS_TOKENS
        )
        self._used = tuple((place[name], name) for name in mapping.used_columns if name in place)
        fields: list[tuple[int, int, str, Emitter]] = []
        compared = []
        unknown = []
        # Whether old rows are whole. If not, they hold the replica identity alone.
        self._full = relation.replica_identity == "f"
        for name, field in mapping.columns:
            convert = version.converters.get(name)
            if convert is None:
                continue
            index = place[name]
            target = mapping.message.fields_by_name[field]
            fields.append((target.number, index, name, emitter(target, convert)))
            if self._full or relation.columns[index].is_key:
                compared.append((index, field))
            else:
                unknown.append(field)
        # By number, as protobuf itself writes them.
        self._fields = tuple((index, name, emit) for _, index, name, emit in sorted(fields, key=_number))
        self._compared = tuple(compared)
        # Fields whose old value is never known: each update counts as a change of them.
        self._unknown = tuple(unknown)

    def update(self, old: Row | None, new: Row) -> list[Draft]:
        """``updated``; or two messages when the row went to another key or another workspace."""
        if self.mismatches:
            return [Draft(self, fmt.UPDATED, new, ())]
        if old is None and self._full:
            return [Draft(self, fmt.UPDATED, new, (), self._old_row_lost(new))]
        if Unchanged.TOAST in new:
            new = self._filled(old, new)
            lacking = [column for index, column in self._used if new[index] is Unchanged.TOAST]
            if lacking:
                return [Draft(self, fmt.UPDATED, new, (), self._incomplete(new, lacking[0]))]
        if old is None:
            return [Draft(self, fmt.UPDATED, new, self._unknown)]
        if old[self._key] != new[self._key]:
            return [Draft(self, fmt.DELETED, old, ()), Draft(self, fmt.CREATED, new, ())]
        if self._workspace is not None and old[self._workspace] != new[self._workspace]:
            return [Draft(self, fmt.LEFT, old, ()), Draft(self, fmt.ENTERED, new, ())]
        changed = tuple([field for index, field in self._compared if old[index] != new[index]])
        return [Draft(self, fmt.UPDATED, new, changed + self._unknown)]

    def truncated(self) -> Draft:
        """The message that all rows of the table went."""
        return Draft(self, fmt.TRUNCATED, (), ())

    def message(self, draft: Draft, moment: Moment, index: int, count: int) -> Outgoing:
        """The message of a draft at its place.

        Raises:
            EventRejected: the row cannot become an event.
            EventTooLarge: the payload is over the limit.
        """
        identity = f"{moment.id_prefix}{index}"
        place = f"{moment.place_prefix}{index}/{count}" if count else f"{moment.place_prefix}{index}"
        entity, workspace, data = self._said(draft)
        verb_head = self._of_verb[draft.verb][1]
        changed_head, changed_fields = _changed(draft.changed) if draft.changed else ("", b"")
        return Outgoing(
            f"zephyr.{fmt.SHARD}.{workspace}.{self.kind}.{entity}.row",
            f"{fmt.ID}: {identity}{verb_head}{place}\r\n{changed_head}",
            self._payload(
                draft.verb,
                identity,
                entity,
                workspace,
                moment.time_field,
                changed_fields + moment.commit_field(index, count),
                data,
            ),
        )

    def state(self, draft: Draft, id_prefix: str, time_field: bytes) -> Outgoing:
        """The message of a row's state that is no change of a transaction. Its id is the prefix with
        the row's place in the subject behind it.

        Raises:
            EventRejected, EventTooLarge: as ``message``.
        """
        entity, workspace, data = self._said(draft)
        identity = f"{id_prefix}{workspace}.{self.kind}.{entity}"
        return Outgoing(
            f"zephyr.{fmt.SHARD}.{workspace}.{self.kind}.{entity}.row",
            f"{fmt.ID}: {identity}\r\n{fmt.VERB}: {draft.verb}\r\n{fmt.SCHEMA}: {self.schema}\r\n",
            self._payload(draft.verb, identity, entity, workspace, time_field, b"", data),
        )

    def _said(self, draft: Draft) -> tuple[str, str, bytes]:
        """Entity, workspace and the envelope's data of a draft."""
        row = draft.row
        if draft.fault is not None:
            raise draft.fault
        if not row:
            return fmt.NONE, fmt.NONE, b""
        if self.mismatches:
            raise EventRejected(
                f"{self._named(row)}: {self.mismatches[0].partition('; ')[0]}",
                self.mismatches[0].partition("; ")[2],
                reason="schema",
            )
        entity, workspace = self._route(row)
        body = self._body_of_end(row) if draft.verb in _ENDS else self._body(row)
        return entity, workspace, self._data_tag + varint(len(body)) + body

    def _payload(
        self,
        verb: str,
        identity: str,
        entity: str,
        workspace: str,
        time_field: bytes,
        between: bytes,
        data: bytes,
    ) -> bytes:
        raw_id, raw_entity, raw_workspace = identity.encode(), entity.encode(), workspace.encode()
        payload = b"".join(
            (
                _ID_TAG,
                varint(len(raw_id)),
                raw_id,
                self._of_verb[verb][0],
                _SUBJECT_TAG,
                varint(len(raw_entity)),
                raw_entity,
                time_field,
                _WORKSPACE_TAG,
                varint(len(raw_workspace)),
                raw_workspace,
                between,
                self._schema_field,
                data,
            )
        )
        if len(payload) > self.origin.max_event_bytes:
            raise EventTooLarge(
                f"{self.table} {entity}: its event has {len(payload)} bytes, "
                f"over the limit of {self.origin.max_event_bytes}",
                "raise ZEPHYR_BRIDGE_MAX_EVENT_BYTES, and the broker's max_payload above it",
            )
        return payload

    def _route(self, row: Row) -> tuple[str, str]:
        """Entity and workspace, as tokens of the subject."""
        entity = row[self._key]
        if not self._key_is_token or type(entity) is not str:
            entity = self._token(row, self._key, self._key_column)
        if self._workspace is None:
            return entity, fmt.NONE
        workspace = row[self._workspace]
        if not self._workspace_is_token or type(workspace) is not str:
            workspace = self._token(row, self._workspace, self._workspace_column)
        return entity, workspace

    def _body(self, row: Row) -> bytes:
        """The row as its protobuf message."""
        parts: list[bytes] = []
        at: str | None = None
        try:
            for index, name, emit in self._fields:
                value = row[index]
                if value is not None:
                    at = name
                    parts.append(emit(value))  # type: ignore[arg-type]
        except ValueError as exc:
            raise self._rejected(row, at, str(exc)) from exc
        body = b"".join(parts)
        if self._any_type:
            return self._any_type + (delimited(_ANY_VALUE, body) if body else b"")
        return body

    def route_if_possible(self, row: Row) -> tuple[str, str]:
        """Entity and workspace of a rejected row; ``_`` for what cannot stand in a subject."""
        entity = row[self._key] if self._key >= 0 else None
        workspace = row[self._workspace] if self._workspace is not None and self._workspace >= 0 else None
        return (
            entity if isinstance(entity, str) and fmt.is_token(entity) else fmt.NONE,
            workspace if isinstance(workspace, str) and fmt.is_token(workspace) else fmt.NONE,
        )

    def key_text(self, row: Row) -> str:
        """The key as the log has it."""
        key = row[self._key] if self._key >= 0 else None
        return key if isinstance(key, str) else ""

    def _body_of_end(self, row: Row) -> bytes:
        """The row that an entity ends with: without what cannot be a field, with key and workspace
        alone when it is too large. That the entity is gone must be said, whatever its last state was.
        """
        try:
            body = self._body(row)
        except EventRejected:
            parts = []
            for index, _, emit in self._fields:
                value = row[index]
                if isinstance(value, str):
                    with contextlib.suppress(ValueError):
                        parts.append(emit(value))
            body = b"".join(parts)
            if self._any_type:
                body = self._any_type + (delimited(_ANY_VALUE, body) if body else b"")
        if len(body) + _ENVELOPE_BYTES > self.origin.max_event_bytes:
            routing = {self._key, self._workspace}
            return self._body(tuple([value if at in routing else None for at, value in enumerate(row)]))
        return body

    def _filled(self, old: Row | None, new: Row) -> Row:
        """``new`` with what the update left alone taken from ``old``, where that has it."""
        if old is None or not self._full:
            return new
        # What is stored out of line is not NULL: the old row would have it, were it whole.
        return tuple(
            before if after is Unchanged.TOAST and before is not None else after
            for before, after in zip(old, new, strict=True)
        )

    def _old_row_lost(self, new: Row) -> EventRejected:
        """The table says FULL, and the partition that the row is in does not.

        See docs/decisions/009-partitions-as-their-root.md."""
        return EventRejected(
            f"{self._named(new)}: the WAL lacks the old row, as of a partition without REPLICA IDENTITY FULL",
            "run: ALTER TABLE … REPLICA IDENTITY FULL for each partition; then begin anew: zephyr bridge new-epoch",
            reason="incomplete",
        )

    def _incomplete(self, row: Row, column: str) -> EventRejected:
        if self._full:
            return self._old_row_lost(row)
        return EventRejected(
            f"{self._named(row)}: the WAL leaves out the unchanged value of {column}",
            f"run: ALTER TABLE {self.table} REPLICA IDENTITY FULL; then begin anew: zephyr bridge new-epoch",
            reason="incomplete",
            column=column,
        )

    def _token(self, row: Row, index: int, column: str) -> str:
        value = row[index]
        if value is None:
            raise self._rejected(row, column, "is NULL and cannot route the event", "routing")
        if not isinstance(value, str) or not fmt.is_token(value) or value == fmt.NONE:
            shown = repr(value if len(str(value)) <= 80 else f"{str(value)[:80]}…")
            raise self._rejected(
                row, column, f"{shown} cannot stand in a subject: letters, digits, - and _ can", "routing"
            )
        return value

    def _rejected(self, row: Row, column: str | None, what: str, reason: str = "value") -> EventRejected:
        return EventRejected(
            f"{self._named(row)}: {f'{column}: ' if column else ''}{what}",
            ROW_MEND,
            reason=reason,
            column=column or "",
        )

    def _named(self, row: Row) -> str:
        key = row[self._key] if self._key >= 0 else None
        return f"{self.table} {self._key_column}={'NULL' if key is None else str(key)[:80]}"


@lru_cache(maxsize=1024)
def _changed(names: tuple[str, ...]) -> tuple[str, bytes]:
    """The names of changed fields as a header and as the envelope's field."""
    fields = (delimited(Event.CHANGED_FIELD_NUMBER, name.encode()) for name in names)
    return f"{fmt.CHANGED}: {','.join(names)}\r\n", b"".join(fields)


def _number(field: tuple[int, int, str, Emitter]) -> int:
    return field[0]
