"""A domain event that a transaction emitted beside its rows: ``pg_logical_emit_message(true, 'zephyr.event', …)``.

Its content is a ``NewEvent``, the one that is published over gRPC, or its JSON form. It takes its place
among the transaction's messages as a row does, and one that cannot be an event is rejected as a row is.
No I/O.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from typing import Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from bridge.change import Begin
from bridge.context import Context, checked_context, read_message
from bridge.errors import EventRejected, EventTooLarge
from bridge.outgoing import Moment, Outgoing, head_of
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from protos.events.v1.rejected_pb2 import DeadColumn, DeadLetter
from protos.schema_name import schema_name

MEND: Final = "correct whoever emits it, and emit it again; see docs/stream-format.md"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TOKEN_CHARACTERS: Final = 256
"""Of a workspace or an entity: a subject has to fit a line of NATS' protocol."""
_JSON_FACTOR: Final = 8
"""So many times the size of a message its JSON form has at most, about."""
_BYTEA: Final = 17
_OTHER: Final = "other"


class DomainEvent:
    """What a transaction emitted, before its place is known. ``kinds`` are those that there are."""

    __slots__ = ("_content", "_context", "_kinds", "_max_bytes", "_said", "source")

    def __init__(
        self, content: bytes, context: Context | None, kinds: Collection[str], source: str, max_bytes: int
    ) -> None:
        self._content = content
        self._context = context or Context()
        self._kinds = kinds
        self.source = source
        self._max_bytes = max_bytes
        self._said = NewEvent()

    def message(self, begin: Begin, moment: Moment, index: int, count: int) -> Outgoing:
        """The message at ``index`` of its transaction; ``count`` is 0 but on the transaction's last.

        Raises:
            EventRejected: it cannot be an event; EventTooLarge if it is over the limit.
        """
        said = self._read()
        self._check(said)
        try:
            context = checked_context(
                said.actor or self._context.actor,
                said.metadata.correlation_id or self._context.correlation_id,
                said.metadata.traceparent or self._context.traceparent,
            )
        except ValueError as exc:
            raise _rejected(str(exc)) from exc
        event = Event(
            id=f"{moment.id_prefix}{index}",
            type=f"{said.kind}.{said.verb}",
            source=self.source,
            subject=said.entity_id,
            # What the committing server's clock has not reached did not happen then, whatever another clock says.
            time=min(said.time, begin.commit_time_us) or begin.commit_time_us,
            workspace_id=_canonical(said.workspace_id),
            data_schema=self._data_schema(said),
        )
        data = said.WhichOneof("data")
        if data is not None:
            getattr(event, data).CopyFrom(getattr(said, data))
        context.fill(event)
        event.commit.lsn, event.commit.index, event.commit.count = begin.commit_lsn, index, count
        payload = event.SerializeToString(deterministic=True)
        if len(payload) > self._max_bytes:
            raise EventTooLarge(
                f"{event.type} of {said.entity_id}: it has {len(payload)} bytes, over the limit of {self._max_bytes}",
                "emit less, or raise ZEPHYR_BRIDGE_MAX_EVENT_BYTES and the broker's max_payload above it",
            )
        headers = {fmt.ID: event.id, fmt.VERB: said.verb}
        if event.data_schema:
            headers[fmt.SCHEMA] = event.data_schema
        headers[fmt.COMMIT] = str(fmt.CommitPlace(begin.commit_lsn, index, count))
        subject = fmt.Subject(event.workspace_id, said.kind, said.entity_id, "event")
        return Outgoing(str(subject), head_of(headers) + context.head, payload)

    def reject(
        self, error: EventRejected, begin: Begin, moment: Moment, index: int, count: int, reason: int
    ) -> tuple[Outgoing, DeadLetter]:
        """The marker for its place in the transaction, and the dead letter. The marker names no entity: the row
        of the one that the event was about is what it was."""
        said = self._said
        kind = said.kind if fmt.is_token(said.kind) and len(said.kind) <= _TOKEN_CHARACTERS else fmt.NONE
        workspace = _canonical(said.workspace_id) if _is_place(said.workspace_id) else fmt.NONE
        event = Event(
            id=f"{moment.id_prefix}{index}",
            type=f"{kind}.{fmt.REJECTED}",
            source=self.source,
            subject=fmt.NONE,
            time=begin.commit_time_us,
            workspace_id=workspace,
        )
        event.rejected.reason = reason  # type: ignore[assignment]
        event.rejected.message = error.message[:1000]
        event.rejected.verb = said.verb[:64]
        event.rejected.table = fmt.EVENT_PREFIX
        event.commit.lsn, event.commit.index, event.commit.count = begin.commit_lsn, index, count
        self._context.fill(event)
        place = fmt.CommitPlace(begin.commit_lsn, index, count)
        head = head_of({fmt.ID: event.id, fmt.VERB: fmt.REJECTED, fmt.COMMIT: str(place)})
        marker = Outgoing(
            str(fmt.Subject(workspace, kind, fmt.NONE, "event")),
            head + self._context.head,
            event.SerializeToString(deterministic=True),
        )
        letter = DeadLetter(
            id=event.id,
            rejected=event.rejected,
            kind=kind,
            key=said.entity_id[:_TOKEN_CHARACTERS],
            commit_lsn=begin.commit_lsn,
            index=index,
            commit_time=begin.commit_time_us,
            columns=[DeadColumn(name="content", type_oid=_BYTEA, value=_shown(self._content))],
        )
        return marker, letter

    def _read(self) -> NewEvent:
        content = self._content
        most = self._max_bytes * (_JSON_FACTOR if content[:1] == b"{" else 1)
        if len(content) > most:
            raise EventTooLarge(
                f"a domain event has a content of {len(content)} bytes, over the limit", "emit less"
            )
        try:
            read_message(content, self._said)
        except ValueError as exc:
            # What was read before the fault tells nobody anything.
            self._said = NewEvent()
            raise _rejected(str(exc)) from exc
        return self._said

    def _check(self, said: NewEvent) -> None:
        if said.kind not in self._kinds:
            raise _rejected(
                f"{said.kind[:80]!r} is no kind of the mapping or of ZEPHYR_KINDS: {', '.join(sorted(self._kinds))}",
                "routing",
            )
        if said.verb in fmt.ROW_VERBS:
            raise _rejected(f"{said.verb!r} is a verb of rows, which the bridge alone says")
        if not fmt.is_verb(said.verb):
            raise _rejected(
                f"{said.verb[:80]!r} is no verb: a lower-case letter, then letters, digits, - and _"
            )
        if not _is_place(said.workspace_id):
            raise _rejected(
                f'workspace_id {said.workspace_id[:80]!r} cannot stand in a subject; "_" is none', "routing"
            )
        if not _is_place(said.entity_id) or said.entity_id == fmt.NONE:
            raise _rejected(f"entity_id {said.entity_id[:80]!r} cannot stand in a subject", "routing")

    def _data_schema(self, said: NewEvent) -> str:
        """The name and the fingerprint of the data's message; empty without data."""
        data = said.WhichOneof("data")
        if data is None:
            return ""
        if data != _OTHER:
            return _schema(getattr(said, data).DESCRIPTOR)
        name = said.other.type_url.rpartition("/")[2]
        try:
            found = descriptor_pool.Default().FindMessageTypeByName(name)
        except KeyError as exc:
            raise _rejected(f"data is of the type {name[:200]!r}, which is not known here", "schema") from exc
        try:
            message_factory.GetMessageClass(found).FromString(said.other.value)
        except DecodeError as exc:
            raise _rejected(f"data is no {name}") from exc
        return _schema(found)


_schemas: dict[str, str] = {}


def _schema(message: Descriptor) -> str:
    name = _schemas.get(message.full_name)
    if name is None:
        name = _schemas[message.full_name] = schema_name(message)
    return name


def _is_place(text: str) -> bool:
    return fmt.is_token(text) and len(text) <= _TOKEN_CHARACTERS


def _canonical(workspace: str) -> str:
    """As Postgres writes it, which is how the rows' subjects have it."""
    return str(uuid.UUID(workspace)) if _UUID.fullmatch(workspace) else workspace


def _rejected(message: str, reason: str = "value") -> EventRejected:
    return EventRejected(f"a domain event: {message}", MEND, reason=reason)


def _shown(content: bytes) -> str:
    """JSON as it is, all else as Postgres writes bytes."""
    if content[:1] == b"{":
        return content.decode("utf-8", "backslashreplace")
    return f"\\x{content.hex()}"
