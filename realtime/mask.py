"""A field mask: which fields of the model a subscription is given.

The envelope is delivered whole; of its data the named fields alone. It costs a decoding an
event and distinct mask, and nothing where there is none.
"""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from protos.events.v1.event_pb2 import Event
from protos.wire import delimited
from realtime.entry import EVENT_FIELD, EVENTS_FIELD, Entry
from realtime.errors import ArgumentInvalid

_MAX_PATHS = 100
_WHOLE = frozenset(("rejected", "other"))
"""Data that is no model: it says why there is none, or is not known here."""


class Mask:
    """Compiled from paths such as ``title`` and ``metadata``; equal masks are one."""

    __slots__ = ("_fields",)

    def __init__(self, paths: Collection[str]) -> None:
        self._fields = frozenset(paths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._fields == other._fields

    def __hash__(self) -> int:
        return hash(self._fields)

    def frame(self, entry: Entry) -> bytes:
        """The entry's frame with what the mask leaves of its data."""
        if not entry.payload_size:
            return entry.frame
        try:
            event = Event.FromString(entry.payload)
        except DecodeError:
            return entry.frame
        self._trim_data(event)
        return delimited(EVENTS_FIELD, entry.place + delimited(EVENT_FIELD, event.SerializeToString()))

    def trimmed(self, event: Event) -> bytes:
        """What the mask leaves of an event, encoded; the event stays as it is."""
        copy = Event()
        copy.CopyFrom(event)
        self._trim_data(copy)
        return copy.SerializeToString()

    def _trim_data(self, event: Event) -> None:
        data = event.WhichOneof("data")
        if data is not None and data not in _WHOLE:
            self._trim(getattr(event, data))

    def _trim(self, message: Message) -> None:
        for field, _ in message.ListFields():
            if field.name not in self._fields:
                message.ClearField(field.name)


def compile_mask(paths: Collection[str], models: Collection[Descriptor]) -> Mask | None:
    """Checks a mask as it came from a client; ``models`` are the messages that it may name fields of. None for none.

    Raises:
        ArgumentInvalid: a path names no field of any model, or there are too many.
    """
    if not paths:
        return None
    if len(paths) > _MAX_PATHS:
        raise ArgumentInvalid(
            "open.field_mask", f"it has {len(paths)} paths, at most {_MAX_PATHS} are possible"
        )
    known = sorted({name for model in models for name in model.fields_by_name})
    for index, path in enumerate(paths):
        if path not in known:
            raise ArgumentInvalid(
                f"open.field_mask.paths[{index}]",
                f"no model has a field {path!r}",
                f"use some of: {', '.join(known)}",
            )
    return Mask(paths)
