"""An event as a subscription hands it out."""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1.event_pb2 import Event


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event with its place: ``sequence`` in the stream, ``cursor`` right after it."""

    event: Event
    sequence: int
    cursor: bytes

    @property
    def kind(self) -> str:
        return self.event.type.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.event.type.partition(".")[2]
