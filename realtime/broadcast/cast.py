"""One broadcast, read once and shared by all who want it.

The subject and the headers say where it goes, as with a stored event; the payload is checked, since one
that cannot be read would make a whole frame unreadable to its client. It is encoded once for
each field mask that somebody asked for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Broadcasts, SubscribeResponse
from protos.wire import delimited
from realtime.entry import Entry, header
from realtime.lean import Message
from realtime.mask import Mask

EVENTS_FIELD: Final = Broadcasts.EVENTS_FIELD_NUMBER
BROADCASTS_FIELD: Final = SubscribeResponse.BROADCASTS_FIELD_NUMBER
_VERB: Final = f"\r\n{fmt.VERB}:"
_NOW: Final = 1 << 62
"""In the place of a sequence: whoever left a workspace did so before it."""


class Item(NamedTuple):
    """``event`` as it stands among others, ``alone`` all that a frame with it alone says of broadcasts."""

    event: bytes
    alone: bytes


class Cast:
    """``entry`` says what it is to a filter."""

    __slots__ = ("_masked", "_whole", "entry")

    def __init__(self, subject: fmt.Subject, verb: str, payload: bytes) -> None:
        event = delimited(EVENTS_FIELD, payload)
        self.entry = Entry(_NOW, 0, subject, verb, None, b"", event, len(payload))
        self._whole: Item | None = None
        self._masked: dict[Mask, Item] = {}

    def item(self, mask: Mask | None) -> Item:
        """It under a mask, encoded."""
        if mask is None:
            if self._whole is None:
                self._whole = _item(self.entry.frame)
            return self._whole
        found = self._masked.get(mask)
        if found is None:
            trimmed = mask.trimmed(Event.FromString(self.entry.payload))
            found = self._masked[mask] = _item(delimited(EVENTS_FIELD, trimmed))
        return found


def read_cast(message: Message, max_bytes: int) -> Cast | None:
    """A broadcast as it came over the wire; None when it is none: anybody may publish there."""
    subject, _, headers, payload = message
    if len(payload) > max_bytes:
        return None
    verb = header(headers.decode("utf-8", "replace"), _VERB)
    if not verb or verb in fmt.ROW_VERBS:
        return None
    try:
        parsed = fmt.parse_live_subject(subject.decode("utf-8", "replace"))
        Event.FromString(payload)
    except (ValueError, DecodeError):
        return None
    return Cast(parsed, verb, payload)


def _item(event: bytes) -> Item:
    return Item(event, delimited(BROADCASTS_FIELD, event))
