"""What a snapshot says of an entity, as messages: ``read`` with its whole state, or that it is gone.

Such a message is no change of a transaction: it has no ``Zephyr-Commit``, so it never moves the
checkpoint. Its id names the snapshot and the entity, so that each attempt says a thing once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from bridge.change import Begin, Operation, Relation, RowChange, Value
from bridge.encode import Encoder
from bridge.errors import EventRejected
from bridge.jetstream import StoredMessage
from bridge.outgoing import Outgoing, head_of
from bridge.reject import reject_state
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.rejected_pb2 import DeadLetter
from protos.wire import varint_field

log = structlog.get_logger("bridge")


class StateEncoder:
    """Messages of one snapshot, taken at ``lsn`` and ``time_us``. The encoder is its own, not the pump's.

    ``keep`` takes the bodies of rows that cannot become events; without it such a row is an error.
    """

    def __init__(
        self,
        encoder: Encoder,
        system_id: str,
        epoch: str,
        lsn: int,
        time_us: int,
        keep: Callable[[DeadLetter], Awaitable[None]] | None = None,
    ) -> None:
        self._encoder = encoder
        self._system_id = system_id
        self._epoch = epoch
        self._lsn = lsn
        self._begin = Begin(lsn, time_us, 0)
        self._time_field = varint_field(Event.TIME_FIELD_NUMBER, time_us)
        self._id_prefix = f"{system_id}.{epoch}.{fmt.format_lsn(lsn)}.r."
        self._keep = keep

    async def read(self, relation: Relation, row: tuple[Value, ...]) -> Outgoing:
        """A row that the snapshot has; a marker for one that cannot become an event, its body kept.

        Raises:
            EventRejected: the row cannot become an event, and nobody keeps its body.
        """
        (draft,) = self._encoder.encode(RowChange(Operation.INSERT, relation, None, row))
        draft = draft.as_verb(fmt.READ)
        try:
            return draft.plan.state(draft, self._id_prefix, self._time_field)
        except EventRejected as error:
            if self._keep is None:
                raise
            marker, letter = reject_state(draft, error, self._begin)
            await self._keep(letter)
            log.warning(
                "a row cannot become an event: it went to the dead letters",
                cause=error.message,
                id=letter.id,
                mend=error.mend,
            )
            return marker

    def gone(self, stored: StoredMessage, verb: str) -> Outgoing:
        """The end of what the stream said last under a subject: ``deleted``, or ``left`` when the
        entity stands under another subject now."""
        return self._said(stored.subject, stored.headers, stored.payload, verb)

    def _said(self, subject: str, headers: dict[str, str], payload: bytes, verb: str) -> Outgoing:
        place = fmt.parse_subject(subject)
        assert place is not None, subject
        event = Event.FromString(payload)
        event.id = fmt.state_id(self._system_id, self._epoch, self._lsn, "d", place)
        event.type = f"{place.kind}.{verb}"
        event.time = self._begin.commit_time_us
        event.ClearField("commit")
        event.ClearField("changed")
        kept = {fmt.ID: event.id, fmt.VERB: verb}
        if fmt.SCHEMA in headers:
            kept[fmt.SCHEMA] = headers[fmt.SCHEMA]
        return Outgoing(subject, head_of(kept), event.SerializeToString())
