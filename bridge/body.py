"""A row as the bytes of its protobuf message, without a message object being made.

One emitter a mapped column, in the order of the fields' numbers, as protobuf itself writes
them. ``google.protobuf.Any`` is put around messages that have no field of their own in
the envelope.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container

from google.protobuf.descriptor import Descriptor

from bridge.draft import Row
from bridge.fields import Emitter
from protos.wire import delimited, varint

_TYPE_URL = "type.googleapis.com/"
_ANY_TYPE, _ANY_VALUE = 1, 2
"""Field numbers of google.protobuf.Any."""


class ColumnUnfit(ValueError):
    """The field of ``column`` cannot hold its value."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(what)
        self.column = column


class Body:
    """The data field ``tag`` of the envelope, of one relation version. ``fields`` are a column's place,
    name and emitter each; ``wraps`` puts the message into an Any."""

    def __init__(
        self, tag: int, message: Descriptor, fields: tuple[tuple[int, str, Emitter], ...], wraps: bool
    ) -> None:
        self._tag = varint(tag << 3 | 2)
        self._fields = fields
        self._any_type = delimited(_ANY_TYPE, (_TYPE_URL + message.full_name).encode()) if wraps else b""

    def data(self, row: Row) -> bytes:
        """The field with its tag.

        Raises:
            ColumnUnfit: a value does not fit its field.
        """
        parts: list[bytes] = []
        for index, name, emit in self._fields:
            value = row[index]
            if value is not None:
                try:
                    parts.append(emit(value))  # type: ignore[arg-type]
                except ValueError as exc:
                    raise ColumnUnfit(name, str(exc)) from exc
        return self._joined(parts)

    def data_of_end(self, row: Row, routing: Container[int | None], max_bytes: int) -> bytes:
        """The row that an entity ends with: without what cannot be a field, with the columns ``routing``
        alone when it is too large. That the entity is gone must be said, whatever its last state was.
        """
        try:
            data = self.data(row)
        except ColumnUnfit:
            parts = []
            for index, _, emit in self._fields:
                value = row[index]
                if isinstance(value, str):
                    with contextlib.suppress(ValueError):
                        parts.append(emit(value))
            data = self._joined(parts)
        if len(data) > max_bytes:
            return self.data(tuple([value if at in routing else None for at, value in enumerate(row)]))
        return data

    def _joined(self, parts: list[bytes]) -> bytes:
        body = b"".join(parts)
        if self._any_type:
            body = self._any_type + (delimited(_ANY_VALUE, body) if body else b"")
        return self._tag + varint(len(body)) + body
