"""How the rows of one relation version become messages.

Columns' places, their emitters and the fixed parts of the events are found once; a row then
costs a pass over its columns and a join. ``update`` says which messages an update is; each
leaves as a draft, and becomes a message when its place is known: ``envelope.py`` has what is
around the data, ``body.py`` the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.body import Body, ColumnUnfit
from bridge.change import Relation, Unchanged
from bridge.draft import Draft, Row
from bridge.envelope import Envelope
from bridge.errors import EventRejected
from bridge.fields import Emitter, emitter
from bridge.fit import ALWAYS_TOKENS, FittedTable
from bridge.outgoing import Moment, Outgoing
from bridge.versions import version_of
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.schema_name import schema_name

# The WAL keeps the row as it was written: correcting it later does not change that.
ROW_MEND = "correct the mapping (docs/mapping.md), or correct the row and begin anew: zephyr bridge new-epoch"
OTHER = "other"
_ENDS: Final = frozenset((fmt.DELETED, fmt.LEFT))
_UPDATED: Final = fmt.UPDATED
_TOAST: Final = Unchanged.TOAST
_ENVELOPE_BYTES = 1024
"""What an event has beside its data, at most, as a rough measure."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of an encoder share."""

    system_id: str
    database: str
    epoch: str
    max_event_bytes: int
    id_prefix: str
    """An event's id up to the commit LSN."""


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
        self.schema = schema_name(mapping.message)
        self.source = f"/postgres/{origin.system_id}/{origin.database}/{mapping.name}"
        self._envelope = Envelope(mapping, self.source, origin.max_event_bytes)
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
        compared: list[tuple[int, str]] = []
        unknown: list[str] = []
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
        in_order = tuple([(index, name, emit) for _, index, name, emit in sorted(fields, key=_number)])
        # What a message that has no field of its own travels in is an Any.
        tag = Event.DESCRIPTOR.fields_by_name[mapping.envelope_field].number
        self._body = Body(tag, mapping.message, in_order, mapping.envelope_field == OTHER)
        self._compared = tuple(compared)
        # Fields whose old value is never known: each update counts as a change of them.
        self._unknown = tuple(unknown)

    def update(self, old: Row | None, new: Row) -> list[Draft]:
        """``updated``; or two messages when the row went to another key or another workspace."""
        if self.mismatches:
            return [Draft(self, _UPDATED, new, ())]
        if old is None and self._full:
            return [Draft(self, _UPDATED, new, (), self._old_row_lost(new))]
        if _TOAST in new:
            new = self._filled(old, new)
            lacking = [column for index, column in self._used if new[index] is _TOAST]
            if lacking:
                return [Draft(self, _UPDATED, new, (), self._incomplete(new, lacking[0]))]
        if old is None:
            return [Draft(self, _UPDATED, new, self._unknown)]
        if old[self._key] != new[self._key]:
            return [Draft(self, fmt.DELETED, old, ()), Draft(self, fmt.CREATED, new, ())]
        if self._workspace is not None and old[self._workspace] != new[self._workspace]:
            return [Draft(self, fmt.LEFT, old, ()), Draft(self, fmt.ENTERED, new, ())]
        changed = tuple([field for index, field in self._compared if old[index] != new[index]])
        return [Draft(self, _UPDATED, new, changed + self._unknown)]

    def truncated(self) -> Draft:
        """The message that all rows of the table went."""
        return Draft(self, fmt.TRUNCATED, (), ())

    def message(self, draft: Draft, moment: Moment, index: int, count: int) -> Outgoing:
        """The message of a draft at its place; ``count`` is 0 but on the transaction's last.

        Raises:
            EventRejected: the row cannot become an event.
            EventTooLarge: the payload is over the limit.
        """
        entity, workspace, data = self._said(draft)
        return self._envelope.change(draft.verb, draft.changed, entity, workspace, data, moment, index, count)

    def state(self, draft: Draft, id_prefix: str, time_field: bytes) -> Outgoing:
        """The message of a row's state that is no change of a transaction; see ``Envelope.state``.

        Raises:
            EventRejected, EventTooLarge: as ``message``.
        """
        entity, workspace, data = self._said(draft)
        return self._envelope.state(draft.verb, entity, workspace, data, id_prefix, time_field)

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
        try:
            if draft.verb in _ENDS:
                limit = self.origin.max_event_bytes - _ENVELOPE_BYTES
                return entity, workspace, self._body.data_of_end(row, (self._key, self._workspace), limit)
            return entity, workspace, self._body.data(row)
        except ColumnUnfit as exc:
            raise self._rejected(row, exc.column, str(exc)) from exc

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

    def _filled(self, old: Row | None, new: Row) -> Row:
        """``new`` with what the update left alone taken from ``old``, where that has it."""
        if old is None or not self._full:
            return new
        # What is stored out of line is not NULL: the old row would have it, were it whole.
        return tuple(
            before if after is _TOAST and before is not None else after
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


def _number(field: tuple[int, int, str, Emitter]) -> int:
    return field[0]
