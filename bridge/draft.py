"""A message that lacks its place in the transaction: what a change becomes first.

The index of a message, and whether it is its transaction's last, are known only when the
next one is: until then it is a draft, and its plan makes the message of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.change import Begin, Value
from bridge.errors import EventRejected
from bridge.outgoing import Moment, Outgoing

if TYPE_CHECKING:
    from bridge.plan import Plan

Row = tuple[Value, ...]


class Draft:
    """``row`` is the state that the message is about, ``changed`` names fields. ``row`` is empty for
    a truncation. ``fault`` says why the row cannot become a message, where that is known already."""

    __slots__ = ("changed", "fault", "plan", "row", "verb")

    def __init__(
        self, plan: Plan, verb: str, row: Row, changed: tuple[str, ...], fault: EventRejected | None = None
    ) -> None:
        self.plan = plan
        self.verb = verb
        self.row = row
        self.changed = changed
        self.fault = fault

    def as_verb(self, verb: str) -> Draft:
        """The same with another verb."""
        return Draft(self.plan, verb, self.row, self.changed, self.fault)

    def finish(self, begin: Begin, index: int, count: int = 0) -> Outgoing:
        """The message at ``index`` of its transaction; ``count`` is 0 but on the last one.

        Raises:
            EventRejected: the row cannot become an event; EventTooLarge if it is over the limit.
        """
        return self.plan.message(self, Moment(begin, self.plan.origin.id_prefix), index, count)
