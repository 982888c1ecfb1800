"""Broadcasts: events that are stored nowhere, as a subscription gives them."""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import Broadcasts


@dataclass(frozen=True, slots=True)
class BroadcastEvent:
    """An event for whoever listens now. It has no place in the stream: neither sequence nor cursor."""

    event: Event

    @property
    def kind(self) -> str:
        return self.event.type.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.event.type.partition(".")[2]


@dataclass(frozen=True, slots=True)
class BroadcastsDropped:
    """So many broadcasts that matched were dropped before the next one, since they came faster than they were
    handled."""

    count: int


Broadcast = BroadcastEvent | BroadcastsDropped


def broadcasts(frame: Broadcasts) -> tuple[Broadcast, ...]:
    """What a frame gives to hand out."""
    dropped = (BroadcastsDropped(frame.dropped),) if frame.dropped else ()
    return (*dropped, *[BroadcastEvent(event) for event in frame.events])
