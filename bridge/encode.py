"""Row changes to events: one change becomes one or two messages of the stream.

What can be known once is known once: a relation version gets a plan (``plan.py``), and a row
runs through it. A change leaves as drafts, since the index of a message and whether it is
its transaction's last are known only to the pump, who has each draft made a message then.
Here is no I/O, and a row that cannot become an event is an error that names it, never a
message left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.change import Begin, Operation, Relation, RowChange, Truncate
from bridge.context import Context
from bridge.domain_event import DomainEvent
from bridge.draft import Draft, Row
from bridge.errors import MappingMismatch, ProtocolError
from bridge.fit import FittedMapping
from bridge.outgoing import Moment
from bridge.plan import Origin, Plan
from protos.events.v1 import stream_format as fmt

_UPDATE: Final = Operation.UPDATE
_INSERT: Final = Operation.INSERT
_CREATED: Final = fmt.CREATED


class Encoder:
    """Encodes the changes of the tables that ``fitted`` maps; those of others give nothing.

    ``max_event_bytes`` is the most that an event's payload may have; ``kinds`` are those of domain events
    beside the mapped ones.
    """

    def __init__(
        self,
        fitted: FittedMapping,
        system_id: str,
        database: str,
        epoch: str,
        max_event_bytes: int,
        kinds: frozenset[str] = frozenset(),
    ) -> None:
        self._fitted = fitted
        self.commit_lsn = 0
        """Of the transaction whose changes are encoded: it says whether a table's version is older than the check."""
        self.altered: Callable[[Plan, Relation], None] = _refuse
        """Told of a relation version that the mapping cannot take, or whose rows lack a column of it, before
        its first row; may raise."""
        self._kinds = kinds.union([table.mapping.kind for table in fitted.tables.values()])
        self._source = f"/postgres/{system_id}/{database}/{fmt.EVENT_PREFIX}"
        self._origin = Origin(system_id, database, epoch, max_event_bytes, f"{system_id}.{epoch}.")
        # The last version seen of each relation, by oid; None for one that is not mapped.
        self._plans: dict[int, tuple[Relation, Plan | None]] = {}

    def moment(self, begin: Begin, context: Context | None = None) -> Moment:
        """What the messages of a transaction share, or those of it that have the same context."""
        return Moment(begin, self._origin.id_prefix, context)

    def domain_event(self, content: bytes, context: Context | None) -> DomainEvent:
        """The event that a transaction emitted, with the context that it has by then."""
        return DomainEvent(content, context, self._kinds, self._source, self._origin.max_event_bytes)

    def encode(self, change: RowChange | Truncate) -> list[Draft]:
        """The messages of a change, in their order.

        Raises:
            EventRejected: a row lacks what its event needs.
            MappingMismatch: the relation is none that the mapping can take; unless ``altered`` says otherwise.
        """
        if type(change) is Truncate:
            plans = (self._plan(relation) for relation in change.relations)
            return [plan.truncated() for plan in plans if plan is not None]
        assert isinstance(change, RowChange)
        operation, relation, old, new = change.operation, change.relation, change.old, change.new
        seen = self._plans.get(relation.oid)
        plan = seen[1] if seen is not None and seen[0] is relation else self._plan(relation)
        if plan is None:
            return []
        if operation is _UPDATE:
            return plan.update(old, _present(new))
        if operation is _INSERT:
            return [Draft(plan, _CREATED, _present(new), ())]
        return [Draft(plan, fmt.DELETED, _present(old), ())]

    def _plan(self, relation: Relation) -> Plan | None:
        seen = self._plans.get(relation.oid)
        is_older = self.commit_lsn <= self._fitted.checked_lsn
        # The same columns before the check and after it: there they came later, here one went.
        if seen is not None and seen[0] == relation and (seen[1] is None or seen[1].is_older == is_older):
            plan = seen[1]
        else:
            table = self._fitted.tables.get(relation.name)
            plan = Plan(table, relation, self._origin, is_older) if table is not None else None
            if plan is not None and (plan.mismatches or plan.absent):
                self.altered(plan, relation)
        self._plans[relation.oid] = (relation, plan)
        return plan


def _refuse(plan: Plan, _: Relation) -> None:
    if plan.mismatches:
        raise MappingMismatch(list(plan.mismatches))


def _present(row: Row | None) -> Row:
    if row is None:
        raise ProtocolError("a change lacks the row that it is about")
    return row
