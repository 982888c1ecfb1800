"""The headers of a CloudEvent on the bridge's events, where ``ZEPHYR_CLOUDEVENTS`` asks for them.

They are made of the finished envelope, beside the hot path: whoever does not ask for them pays nothing.
Why the data are the envelope: docs/decisions/028-the-envelope-is-the-data.md.
"""

from __future__ import annotations

from bridge.outgoing import Outgoing, head_of
from protos.cloudevents import headers_of_event
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event

_MARKS = f"{fmt.ROOT}.{fmt.MARKS}."


def with_cloud_event(message: Outgoing) -> Outgoing:
    """The message with the headers; a mark as it is."""
    if message.subject.startswith(_MARKS):
        return message
    headers = headers_of_event(Event.FromString(message.payload))
    return Outgoing(message.subject, message.head + head_of(headers), message.payload)
