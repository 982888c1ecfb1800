"""A message's name with a fingerprint of its definition: what an event's ``data_schema`` says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_FIELD_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def schema_name(message: Descriptor) -> str:
    """Name and fingerprint of a message: ``zephyr.models.v1.Note/3f2a…``.

    The fingerprint is the first 12 hex digits of the SHA-256 of its fields' numbers, names,
    labels and types, of nested messages and enums too; comments and field order do not count.
    """
    canonical = "\n".join(_canonical(message, set()))
    return f"{message.full_name}/{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def _canonical(message: Descriptor, seen: set[str]) -> Iterator[str]:
    seen.add(message.full_name)
    yield f"message {message.full_name}"
    nested: list[Descriptor] = []
    for field in sorted(message.fields, key=lambda field: field.number):
        label = "repeated" if field.is_repeated else "optional" if field.has_presence else "implicit"
        kind = _FIELD_TYPES[field.type]
        if field.message_type is not None:
            kind = f"{kind} {field.message_type.full_name}"
            nested.append(field.message_type)
        elif field.enum_type is not None:
            values = ",".join(f"{value.number}={value.name}" for value in field.enum_type.values)
            kind = f"{kind} {field.enum_type.full_name}({values})"
        yield f"{field.number} {field.name} {label} {kind}"
    for inner in nested:
        if inner.full_name not in seen:
            yield from _canonical(inner, seen)
