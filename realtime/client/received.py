"""Events as a subscription hands them out: one by one, or in the batches that they came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from protos.events.v1.event_pb2 import Event
from protos.events.v1.stream_pb2 import StreamedEvent


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event with its place: ``sequence`` in the stream, ``cursor`` right after it.

    In a snapshot an item that was not read from the stream has sequence 0 and no cursor, and
    no cursor of an item is a place to go on after: that of ``SnapshotEnds`` is.
    """

    event: Event
    sequence: int
    cursor: bytes

    @property
    def kind(self) -> str:
        return self.event.type.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.event.type.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Batch(Sequence[ReceivedEvent]):
    """What came in one frame, in the stream's order. ``cursor`` is the place behind all of it, empty in a snapshot.

    ``transaction_open``: as far as was known, more of the last event's transaction follows.
    """

    events: tuple[ReceivedEvent, ...]
    cursor: bytes
    transaction_open: bool = False
    in_snapshot: bool = False
    are_corrections: bool = False
    """Of a snapshot: what changed while the state was read."""

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return iter(self.events)

    @overload
    def __getitem__(self, index: int) -> ReceivedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReceivedEvent]: ...
    def __getitem__(self, index: int | slice) -> ReceivedEvent | Sequence[ReceivedEvent]:
        return self.events[index]


def received(items: Iterable[StreamedEvent]) -> tuple[ReceivedEvent, ...]:
    """Events as they are handed out."""
    return tuple([ReceivedEvent(item.event, item.sequence, item.cursor) for item in items])
