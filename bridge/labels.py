"""The labels of a Postgres enum as the values of a protobuf enum.

A label is the value of its very name, or the value that the Protobuf style guide would give it:
``in progress`` of ``Mood`` is ``MOOD_IN_PROGRESS``. Two labels never become one value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from google.protobuf.descriptor import EnumDescriptor

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


def number_of(label: str, enum: EnumDescriptor) -> int | None:
    """The value's number; None when no value has the label's name."""
    value = enum.values_by_name.get(label) or enum.values_by_name.get(f"{_snake(enum.name)}_{_snake(label)}")
    return value.number if value is not None else None


def mismatch(labels: Sequence[str], enum: EnumDescriptor) -> str | None:
    """Why the labels are no values of the enum; None when they are."""
    without = [label for label in labels if number_of(label, enum) is None]
    if without:
        return f"{enum.name} has no value for {', '.join(map(repr, without))}"
    taken: dict[int | None, str] = {}
    for label in labels:
        first = taken.setdefault(number_of(label, enum), label)
        if first != label:
            return f"{enum.name} has the same value for {first!r} and {label!r}"
    return None


def converter(enum: EnumDescriptor) -> Callable[[str], int]:
    """What turns a label into its value's number; it raises ValueError for one that has none."""
    known: dict[str, int] = {}  # bounded by the enum's values: only their labels are kept

    def convert(label: str) -> int:
        number = known.get(label)
        if number is None:
            number = number_of(label, enum)
            if number is None:
                raise ValueError(f"{enum.name} has no value for {label!r}")
            known[label] = number
        return number

    return convert


def _snake(name: str) -> str:
    return "_".join(word for word in _WORDS.split(name) if word).upper()
