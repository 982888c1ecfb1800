"""The rules of the contract, run on what a client sent."""

from __future__ import annotations

import re
from collections.abc import Sequence

import protovalidate
from google.protobuf.message import Message

from protos.events.v1.publish_pb2 import ProducedEvents
from realtime.errors import ArgumentInvalid

_MOST_TOLD = 50
_MOST_EVENTS = 1000
_MOST_HEADS = 4096
_validator = protovalidate.Validator()
_is_entity = re.compile(r"[A-Za-z0-9_-]{1,128}").fullmatch
_heads: set[tuple[str, str, str]] = set()
"""Workspaces, kinds and verbs that kept the rules together: publishers say the same ones again and again."""


class RuleBroken(ArgumentInvalid):
    """Fields that break rules: all of them, or the first ones of very many."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__(*violations[0])
        self.violations = tuple(violations)


def holds(message: Message) -> bool:
    """Whether a message keeps the rules of its contract."""
    return not _validator.collect_violations(message, fail_fast=True)


def request_holds(request: ProducedEvents) -> bool:
    """``holds`` of a request of a stream. The validator takes a good part of what an event costs the server, so an
    event of which all but the entity was seen before is not shown to it."""
    if _surely_holds(request):
        return True
    if not holds(request):
        return False
    if len(_heads) > _MOST_HEADS:
        _heads.clear()
    for produced in request.events:
        event = produced.event
        _heads.add((event.workspace_id, event.kind, event.verb))
    return True


def _surely_holds(request: ProducedEvents) -> bool:
    """Whether no rule can be broken; tests/unit/realtime/test_publish_rules.py knows which there are."""
    if len(request.events) > _MOST_EVENTS:
        return False
    for produced in request.events:
        event = produced.event
        if (
            (event.workspace_id, event.kind, event.verb) not in _heads
            or _is_entity(event.entity_id) is None
            or event.time < 0
            or event.actor
            or event.HasField("metadata")
            or not produced.sequence
        ):
            return False
    return True


def check(message: Message, prefix: str = "") -> None:
    """Holds a message against the rules of its contract.

    Raises:
        RuleBroken: it breaks some.
    """
    found = _validator.collect_violations(message)
    if found:
        raise RuleBroken([_told(each, prefix) for each in found[:_MOST_TOLD]])


def _told(violation: protovalidate.Violation, prefix: str) -> tuple[str, str]:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    message = violation.proto.message or violation.proto.rule_id or "it breaks a rule of the contract"
    return f"{prefix}{path}", message
