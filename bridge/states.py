"""What a snapshot says of an entity, as messages: ``read`` with its whole state, or that it is gone.

Such a message is no change of a transaction: it has no ``Zephyr-Commit``, so it never moves the
checkpoint. Its id names the snapshot and the entity, so that each attempt says a thing once.
"""

from __future__ import annotations

from bridge.change import Begin, Operation, Relation, RowChange, Value
from bridge.encode import Encoder
from bridge.jetstream import StoredMessage
from bridge.outgoing import Outgoing, head_of
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event


class StateEncoder:
    """Messages of one snapshot, taken at ``lsn`` and ``time_us``. The encoder is its own, not the pump's."""

    def __init__(self, encoder: Encoder, system_id: str, epoch: str, lsn: int, time_us: int) -> None:
        self._encoder = encoder
        self._system_id = system_id
        self._epoch = epoch
        self._lsn = lsn
        self._begin = Begin(lsn, time_us, 0)

    def read(self, relation: Relation, row: tuple[Value, ...]) -> Outgoing:
        """A row that the snapshot has.

        Raises:
            EventRejected: the row cannot become an event.
        """
        (draft,) = self._encoder.encode(RowChange(Operation.INSERT, relation, None, row))
        message = draft.finish(self._begin, 0)
        return self._said(message.subject, message.headers, message.payload, fmt.READ)

    def gone(self, stored: StoredMessage, verb: str) -> Outgoing:
        """The end of what the stream said last under a subject: ``deleted``, or ``left`` when the
        entity stands under another subject now."""
        return self._said(stored.subject, stored.headers, stored.payload, verb)

    def _said(self, subject: str, headers: dict[str, str], payload: bytes, verb: str) -> Outgoing:
        place = fmt.parse_subject(subject)
        assert place is not None, subject
        mark = "r" if verb == fmt.READ else "d"
        event = Event.FromString(payload)
        event.id = fmt.state_id(self._system_id, self._epoch, self._lsn, mark, place)  # type: ignore[arg-type]
        event.type = f"{place.kind}.{verb}"
        event.time = self._begin.commit_time_us
        event.ClearField("commit")
        event.ClearField("changed")
        kept = {fmt.ID: event.id, fmt.VERB: verb}
        if fmt.SCHEMA in headers:
            kept[fmt.SCHEMA] = headers[fmt.SCHEMA]
        return Outgoing(subject, head_of(kept), event.SerializeToString())
