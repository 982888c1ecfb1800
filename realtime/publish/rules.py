"""The rules of the contract, run on what a client sent."""

from __future__ import annotations

from collections.abc import Sequence

import protovalidate
from google.protobuf.message import Message

from realtime.errors import ArgumentInvalid

_MOST_TOLD = 50
_validator = protovalidate.Validator()


class RuleBroken(ArgumentInvalid):
    """Fields that break rules: all of them, or the first ones of very many."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__(*violations[0])
        self.violations = tuple(violations)


def holds(message: Message) -> bool:
    """Whether a message keeps the rules of its contract."""
    return not _validator.collect_violations(message, fail_fast=True)


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
