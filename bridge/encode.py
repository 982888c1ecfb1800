"""Row changes to events: one change becomes one or two messages of the stream.

What can be known once is known once: a relation version gets a plan, with its converters,
its columns' places and the fixed parts of its events, and a row runs through it. A message
leaves as a ``Draft``, since its index and whether it is the transaction's last are known
only to the publisher, who finishes it. Here is no I/O, and a row that cannot become an
event is an error that names it, never a message left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf import message_factory
from google.protobuf.message import Message

from bridge import values
from bridge.change import Begin, Operation, Relation, RowChange, Truncate, Unchanged, Value
from bridge.errors import EventRejected, EventTooLarge, MappingMismatch, ProtocolError
from bridge.fit import ALWAYS_TOKENS, FittedMapping, FittedTable, relation_mismatches
from bridge.mapping import schema_name
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event

Row = tuple[Value, ...]

# The WAL keeps the row as it was written: correcting it later does not change that.
ROW_MEND = "correct the mapping (docs/mapping.md), or correct the row and begin anew: zephyr bridge new-epoch"
OTHER = "other"


# One of each is made for every row, and a frozen dataclass takes six times a named tuple's time.
class Outgoing(NamedTuple):
    """A message of the stream, as it is published."""

    subject: str
    headers: dict[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of an encoder share."""

    system_id: str
    database: str
    epoch: str
    max_event_bytes: int


class Draft(NamedTuple):
    """A message that lacks its place in the transaction. ``entity`` is ``_`` for a truncation;
    ``changed`` names fields, ``table`` is ``schema.table``."""

    subject: str
    verb: str
    changed: tuple[str, ...]
    schema: str
    entity: str
    table: str
    event: Event
    origin: Origin

    def finish(self, begin: Begin, index: int, count: int = 0) -> Outgoing:
        """The message at ``index`` of its transaction; ``count`` is 0 but on the last one.

        Raises:
            EventTooLarge: the payload is over the limit.
        """
        origin, event, lsn = self.origin, self.event, begin.commit_lsn
        event.id = fmt.event_id(origin.system_id, origin.epoch, lsn, index)
        event.time = begin.commit_time_us
        commit = event.commit
        commit.lsn = lsn
        commit.index = index
        commit.count = count
        payload = event.SerializeToString()
        if len(payload) > origin.max_event_bytes:
            raise EventTooLarge(
                f"{self.table} {self.entity}: its event has {len(payload)} bytes, "
                f"over the limit of {origin.max_event_bytes}",
                "raise ZEPHYR_BRIDGE_MAX_EVENT_BYTES, and the broker's max_payload above it",
            )
        headers = {
            fmt.ID: event.id,
            fmt.VERB: self.verb,
            fmt.COMMIT: _commit_place(lsn, index, count),
            fmt.SCHEMA: self.schema,
        }
        if self.changed:
            headers[fmt.CHANGED] = ",".join(self.changed)
        return Outgoing(self.subject, headers, payload)


class Encoder:
    """Encodes the changes of the tables that ``fitted`` maps; those of others give nothing.

    ``max_event_bytes`` is the most that an event's payload may have.
    """

    def __init__(
        self, fitted: FittedMapping, system_id: str, database: str, epoch: str, max_event_bytes: int
    ) -> None:
        self._fitted = fitted
        self._origin = Origin(system_id, database, epoch, max_event_bytes)
        # The last version seen of each relation, by oid; None for one that is not mapped.
        self._plans: dict[int, tuple[Relation, _Plan | None]] = {}

    def encode(self, change: RowChange | Truncate) -> list[Draft]:
        """The messages of a change, in their order.

        Raises:
            EventRejected: a row cannot become an event.
            MappingMismatch: the relation is not the one that the mapping was checked against.
        """
        if isinstance(change, Truncate):
            plans = (self._plan(relation) for relation in change.relations)
            return [plan.truncated() for plan in plans if plan is not None]
        plan = self._plan(change.relation)
        if plan is None:
            return []
        if change.operation is Operation.UPDATE:
            return plan.update(change.old, _present(change.new))
        if change.operation is Operation.INSERT:
            return [plan.draft(fmt.CREATED, _present(change.new))]
        return [plan.draft(fmt.DELETED, _present(change.old))]

    def _plan(self, relation: Relation) -> _Plan | None:
        seen = self._plans.get(relation.oid)
        if seen is not None and seen[0] is relation:
            return seen[1]
        if seen is not None and seen[0] == relation:
            plan = seen[1]
        else:
            table = self._fitted.tables.get(relation.name)
            plan = _Plan(table, relation, self._origin) if table is not None else None
        self._plans[relation.oid] = (relation, plan)
        return plan


class _Plan:
    """How rows of one relation version become events.

    Raises:
        MappingMismatch: the relation lacks what the mapping was checked to have.
    """

    def __init__(self, table: FittedTable, relation: Relation, origin: Origin) -> None:
        mapping = table.mapping
        found = relation_mismatches(table, relation)
        if found:
            raise MappingMismatch(found)
        place = {column.name: index for index, column in enumerate(relation.columns)}
        self._origin = origin
        self._table = mapping.name
        self._kind = mapping.kind
        self._schema = schema_name(mapping.message)
        self._source = f"/postgres/{origin.system_id}/{origin.database}/{mapping.name}"
        self._data_field = mapping.envelope_field
        self._message_class = message_factory.GetMessageClass(mapping.message)
        self._key = place[mapping.key]
        self._key_column = mapping.key
        self._key_is_token = table.columns[mapping.key].base_oid in ALWAYS_TOKENS
        self._workspace = place[mapping.workspace] if mapping.workspace is not None else None
        self._workspace_column = mapping.workspace or ""
        self._workspace_is_token = (
            mapping.workspace is not None and table.columns[mapping.workspace].base_oid in ALWAYS_TOKENS
        )
        self._used = tuple((place[name], name) for name in mapping.used_columns)
        fields = []
        compared = []
        unknown = []
        # Whether old rows are whole. If not, they hold the replica identity alone.
        self._full = relation.replica_identity == "f"
        for name, field in mapping.columns:
            index = place[name]
            convert = table.columns[name].converter(mapping.message.fields_by_name[field])
            # None instead of the identity spares a call for each text.
            fields.append((index, name, field, None if convert is values.text else convert))
            if self._full or relation.columns[index].is_key:
                compared.append((index, field))
            else:
                unknown.append(field)
        self._fields = tuple(fields)
        self._compared = tuple(compared)
        # Fields whose old value is never known: each update counts as a change of them.
        self._unknown = tuple(unknown)

    def update(self, old: Row | None, new: Row) -> list[Draft]:
        """``updated``; or two messages when the row went to another key or another workspace."""
        if old is None and self._full:
            raise self._old_row_lost(new)
        if Unchanged.TOAST in new:
            new = self._filled(old, new)
        if old is not None:
            if old[self._key] != new[self._key]:
                return [self.draft(fmt.DELETED, old), self.draft(fmt.CREATED, new)]
            if self._workspace is not None and old[self._workspace] != new[self._workspace]:
                return [self.draft(fmt.LEFT, old), self.draft(fmt.ENTERED, new)]
        changed = [field for index, field in self._compared if old is not None and old[index] != new[index]]
        return [self.draft(fmt.UPDATED, new, (*changed, *self._unknown))]

    def draft(self, verb: str, row: Row, changed: tuple[str, ...] = ()) -> Draft:
        """A message about one row in the state ``row``."""
        entity = row[self._key]
        if not self._key_is_token or type(entity) is not str:
            entity = self._token(row, self._key, self._key_column)
        workspace = fmt.NONE
        if self._workspace is not None:
            routing = row[self._workspace]
            if not self._workspace_is_token or type(routing) is not str:
                routing = self._token(row, self._workspace, self._workspace_column)
            workspace = routing
        fields: dict[str, object] = {}
        at: str | None = None
        try:
            for index, name, field, convert in self._fields:
                value = row[index]
                if value is not None:
                    at = name
                    fields[field] = value if convert is None else convert(value)  # type: ignore[arg-type]
            at = None
            event = self._event(verb, entity, workspace, changed, fields)
        except ValueError as exc:
            raise self._rejected(row, at, str(exc)) from exc
        subject = f"{fmt.ROOT}.{fmt.SHARD}.{workspace}.{self._kind}.{entity}.row"
        return Draft(subject, verb, changed, self._schema, entity, self._table, event, self._origin)

    def truncated(self) -> Draft:
        """The message that all rows of the table went."""
        event = self._event(fmt.TRUNCATED, fmt.NONE, fmt.NONE, (), None)
        subject = str(fmt.Subject(fmt.NONE, self._kind, fmt.NONE))
        return Draft(subject, fmt.TRUNCATED, (), self._schema, fmt.NONE, self._table, event, self._origin)

    def _event(
        self,
        verb: str,
        entity: str,
        workspace: str,
        changed: tuple[str, ...],
        fields: dict[str, object] | None,
    ) -> Event:
        data: dict[str, object] = {"changed": changed} if changed else {}
        if fields is not None and self._data_field != OTHER:
            data[self._data_field] = fields
        event = Event(
            type=f"{self._kind}.{verb}",
            source=self._source,
            subject=entity,
            workspace_id=workspace,
            data_schema=self._schema,
            **data,  # type: ignore[arg-type]  # a message may be given by its fields
        )
        if fields is not None and self._data_field == OTHER:
            message: Message = self._message_class(**fields)
            event.other.Pack(message, deterministic=True)
        return event

    def _filled(self, old: Row | None, new: Row) -> Row:
        """``new`` with what the update left alone taken from ``old``."""
        if old is not None and self._full:
            # What is stored out of line is not NULL: the old row would have it, were it whole.
            if any(
                after is Unchanged.TOAST and before is None for before, after in zip(old, new, strict=True)
            ):
                raise self._old_row_lost(new)
            new = tuple(
                before if after is Unchanged.TOAST else after for before, after in zip(old, new, strict=True)
            )
        for index, column in self._used:
            if new[index] is Unchanged.TOAST:
                raise EventRejected(
                    f"{self._named(new)}: the WAL leaves out the unchanged value of {column}",
                    f"run: ALTER TABLE {self._table} REPLICA IDENTITY FULL; then begin anew: zephyr bridge new-epoch",
                )
        return new

    def _old_row_lost(self, new: Row) -> EventRejected:
        """The table says FULL, and the partition that the row is in does not.

        See docs/decisions/007-partitions-as-their-root.md."""
        return EventRejected(
            f"{self._named(new)}: the WAL lacks the old row, as of a partition without REPLICA IDENTITY FULL",
            "run: ALTER TABLE … REPLICA IDENTITY FULL for each partition; then begin anew: zephyr bridge new-epoch",
        )

    def _token(self, row: Row, index: int, column: str) -> str:
        value = row[index]
        if value is None:
            raise self._rejected(row, column, "is NULL and cannot route the event")
        if not isinstance(value, str) or not fmt.is_token(value) or value == fmt.NONE:
            shown = repr(value if len(str(value)) <= 80 else f"{str(value)[:80]}…")
            raise self._rejected(
                row, column, f"{shown} cannot stand in a subject: letters, digits, - and _ can"
            )
        return value

    def _rejected(self, row: Row, column: str | None, reason: str) -> EventRejected:
        return EventRejected(f"{self._named(row)}: {f'{column}: ' if column else ''}{reason}", ROW_MEND)

    def _named(self, row: Row) -> str:
        key = row[self._key]
        return f"{self._table} {self._key_column}={'NULL' if key is None else str(key)[:80]}"


def _commit_place(lsn: int, index: int, count: int) -> str:
    """``str(CommitPlace(…))`` without making one."""
    place = f"{fmt.format_lsn(lsn)}/{index}"
    return f"{place}/{count}" if count else place


def _present(row: Row | None) -> Row:
    if row is None:
        raise ProtocolError("a change lacks the row that it is about")
    return row
