"""Who and what is behind a transaction, as it says itself by a logical message: read once, carried by its events.

A context that cannot be read costs its transaction nothing but the context: what was committed is told
all the same. In headers stand visible ASCII characters alone; others are percent-encoded, as CloudEvents
has it for HTTP and NATS headers.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from protos.events.v1 import stream_format as fmt
from protos.events.v1.context_pb2 import TransactionContext
from protos.events.v1.event_pb2 import Event
from protos.wire import delimited

MAX_BYTES: Final = 1024
"""Of each of its texts."""
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What stands in a header as it is."""


class Context:
    """``fields`` are the envelope's fields as bytes, ``head`` the headers: empty for what is not said. A value."""

    __slots__ = ("actor", "correlation_id", "fields", "head", "traceparent")

    def __init__(self, actor: str = "", correlation_id: str = "", traceparent: str = "") -> None:
        self.actor = actor
        self.correlation_id = correlation_id
        self.traceparent = traceparent
        fields, head = b"", ""
        for number, name, text in (
            (Event.ACTOR_FIELD_NUMBER, fmt.ACTOR, actor),
            (Event.CORRELATION_ID_FIELD_NUMBER, fmt.CORRELATION, correlation_id),
            (Event.TRACEPARENT_FIELD_NUMBER, fmt.TRACEPARENT, traceparent),
        ):
            if text:
                fields += delimited(number, text.encode())
                head += f"{name}: {header_text(text)}\r\n"
        self.fields = fields
        self.head = head

    def fill(self, event: Event) -> None:
        """Puts it into an event."""
        event.actor, event.correlation_id, event.traceparent = (
            self.actor,
            self.correlation_id,
            self.traceparent,
        )


def read_context(content: bytes) -> Context:
    """Reads the content of a logical message: a ``TransactionContext``, or its JSON form.

    Raises:
        ValueError: it is neither, or a text is too long; says what is wrong.
    """
    said = TransactionContext()
    read_message(content, said, ignores_unknown=True)
    return checked_context(said.actor, said.correlation_id, said.traceparent)


def checked_context(actor: str, correlation_id: str, traceparent: str) -> Context:
    """A context of texts that came from outside.

    Raises:
        ValueError: one of them is too long; names it.
    """
    for name, text in (("actor", actor), ("correlation_id", correlation_id), ("traceparent", traceparent)):
        if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
            raise ValueError(f"{name} is longer than {MAX_BYTES} bytes")
    return Context(actor, correlation_id, traceparent)


def read_message(content: bytes, message: Message, ignores_unknown: bool = False) -> None:
    """Reads content that is a serialized message, or its JSON form, which begins with a brace.

    Raises:
        ValueError: it is neither.
    """
    try:
        # No message begins with a brace: it would be the start of a group.
        if content[:1] == b"{":
            json_format.Parse(content, message, ignore_unknown_fields=ignores_unknown)
        else:
            message.ParseFromString(content)
    except (json_format.Error, DecodeError, ValueError, TypeError, RecursionError) as exc:
        what = f"{type(exc).__name__}: {exc}".splitlines()[0][:300]
        raise ValueError(f"its content is no {message.DESCRIPTOR.full_name}: {what}") from exc


def header_text(text: str) -> str:
    """A text as it stands in a header."""
    return quote(text, safe=_PLAIN)
