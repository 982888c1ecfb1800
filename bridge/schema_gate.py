"""What happens when a mapped table was altered so that the mapping cannot take its rows.

A control event goes into the stream at the place of the first such row, once for each thing
that is to be said, whatever number of terms come to it. Then, by policy, the bridge pauses
there, with nothing behind it stored or confirmed, or every such row goes to the dead letters.
"""

from __future__ import annotations

from typing import Literal

import structlog

from bridge.change import Relation
from bridge.encode import Encoder
from bridge.errors import MappingMismatch
from bridge.outbox import Outbox
from bridge.outgoing import Outgoing
from bridge.plan import Plan
from protos.events.v1 import stream_format as fmt
from protos.events.v1.schema_change_pb2 import SchemaChange, SchemaColumn

log = structlog.get_logger("bridge")

Policy = Literal["pause", "dead-letter"]
_POLICIES = {"pause": SchemaChange.POLICY_PAUSE, "dead-letter": SchemaChange.POLICY_DEAD_LETTER}


class SchemaGate:
    """One term's. ``said`` is the last control event that the stream has, as bytes."""

    def __init__(self, encoder: Encoder, outbox: Outbox, policy: Policy, epoch: str, said: bytes) -> None:
        self._encoder = encoder
        self._outbox = outbox
        self._policy: Policy = policy
        self._epoch = epoch
        self._said = said

    def altered(self, plan: Plan, relation: Relation) -> None:
        """Takes a relation version that the mapping cannot take, or whose rows lack a column of it, before its first row.

        Raises:
            MappingMismatch: it cannot be taken, and the policy is to pause.
        """
        if not plan.mismatches:
            # Not known here: whether the column was added later, or had another name for a while.
            log.warning(
                "rows from before a table was altered lack a mapped column",
                table=plan.table,
                columns=list(plan.absent),
                commit=f"{self._encoder.commit_lsn:X}",
                mend=f"where the rows have a value now, run: zephyr bridge backfill {plan.table}",
            )
            return
        change = SchemaChange(
            epoch=self._epoch,
            table=plan.table,
            commit_lsn=self._encoder.commit_lsn,
            policy=_POLICIES[self._policy],
            mismatches=plan.mismatches,
            columns=[SchemaColumn(name=each.name, type_oid=each.type_oid) for each in relation.columns],
        )
        payload = change.SerializeToString(deterministic=True)
        if payload != self._said:
            self._said = payload
            self._outbox.insert([Outgoing(fmt.SCHEMA_SUBJECT, "", payload)], _nothing)
        does = "pausing" if self._policy == "pause" else "its rows go to the dead letters"
        for line in plan.mismatches:
            log.error("a mapped table was altered", table=plan.table, now=does, cause=line)
        if self._policy == "pause":
            raise MappingMismatch(list(plan.mismatches))


def _nothing() -> None:
    """Nobody waits for a control event."""
