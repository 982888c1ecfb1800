"""A row that cannot become an event: what stands in its place, and where its body goes.

The marker takes the row's index in the transaction, so that its neighbours pass and nobody
takes its absence for a loss; it is an event like others, with the verb ``rejected`` and the
reason as its data. The body, as the log has it, is a dead letter. No I/O.
"""

from __future__ import annotations

from bridge.change import Begin, Unchanged
from bridge.domain_event import DomainEvent
from bridge.draft import Draft
from bridge.errors import EventRejected
from bridge.outgoing import Moment, Outgoing, head_of
from bridge.plan import Plan
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.rejected_pb2 import DeadColumn, DeadLetter, Rejected

_MESSAGE_CHARACTERS = 1000
_REASONS = {
    "value": Rejected.REASON_VALUE,
    "too large": Rejected.REASON_TOO_LARGE,
    "routing": Rejected.REASON_ROUTING,
    "schema": Rejected.REASON_SCHEMA,
    "incomplete": Rejected.REASON_INCOMPLETE,
}


def reject(
    draft: Draft | DomainEvent, error: EventRejected, begin: Begin, moment: Moment, index: int, count: int
) -> tuple[Outgoing, DeadLetter]:
    """The marker for a draft's place in its transaction, and the dead letter."""
    if isinstance(draft, DomainEvent):
        return draft.reject(error, begin, moment, index, count, _REASONS[error.reason])
    plan, origin = draft.plan, draft.plan.origin
    identity = fmt.event_id(origin.system_id, origin.epoch, begin.commit_lsn, index)
    event = _event(draft, error, identity, begin)
    event.commit.lsn, event.commit.index, event.commit.count = begin.commit_lsn, index, count
    place = {fmt.COMMIT: str(fmt.CommitPlace(begin.commit_lsn, index, count))}
    if moment.context is not None:
        moment.context.fill(event)
    return _marker(plan, event, place, moment.context_head), _letter(draft, event, begin, index)


def reject_state(draft: Draft, error: EventRejected, begin: Begin) -> tuple[Outgoing, DeadLetter]:
    """The same for a row that a copy of the tables found: it has no place in a transaction."""
    plan, origin = draft.plan, draft.plan.origin
    entity, workspace = plan.route_if_possible(draft.row)
    place = fmt.Subject(workspace, plan.kind, entity)
    identity = fmt.state_id(origin.system_id, origin.epoch, begin.commit_lsn, "r", place)
    event = _event(draft, error, identity, begin)
    return _marker(plan, event, {}), _letter(draft, event, begin, 0)


def _event(draft: Draft, error: EventRejected, identity: str, begin: Begin) -> Event:
    plan = draft.plan
    entity, workspace = plan.route_if_possible(draft.row)
    return Event(
        id=identity,
        type=f"{plan.kind}.{fmt.REJECTED}",
        source=plan.source,
        subject=entity,
        time=begin.commit_time_us,
        workspace_id=workspace,
        data_schema=plan.schema,
        rejected=Rejected(
            reason=_REASONS[error.reason],
            message=error.message[:_MESSAGE_CHARACTERS],
            verb=draft.verb,
            table=plan.table,
            column=error.column,
        ),
    )


def _marker(plan: Plan, event: Event, place: dict[str, str], context_head: str = "") -> Outgoing:
    head = head_of({fmt.ID: event.id, fmt.VERB: fmt.REJECTED, fmt.SCHEMA: plan.schema} | place) + context_head
    subject = str(fmt.Subject(event.workspace_id, plan.kind, event.subject))
    return Outgoing(subject, head, event.SerializeToString(deterministic=True))


def _letter(draft: Draft, event: Event, begin: Begin, index: int) -> DeadLetter:
    letter = DeadLetter(
        id=event.id,
        rejected=event.rejected,
        kind=draft.plan.kind,
        key=draft.plan.key_text(draft.row),
        commit_lsn=begin.commit_lsn,
        index=index,
        commit_time=begin.commit_time_us,
    )
    for column, value in zip(draft.plan.columns, draft.row, strict=True):
        text = value if isinstance(value, str) else None
        letter.columns.append(
            DeadColumn(
                name=column.name, type_oid=column.type_oid, value=text, unchanged=value is Unchanged.TOAST
            )
        )
    return letter
