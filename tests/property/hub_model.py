"""A stream that is a list, and what a subscription was told: what the hub is compared with.

Filters are said here in another way than the code does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime.entry import Entry, make_entry
from realtime.filters import Filter
from realtime.jetstream import StreamState
from realtime.subscriber import Subscriber

PAGE = 5
A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def wants(wanted: Filter, entry: Entry) -> bool:
    """What a filter means, said in another way than the code does."""
    subject = entry.subject
    if subject is None or (wanted.kinds and subject.kind not in wanted.kinds):
        return False
    if entry.verb == fmt.TRUNCATED and subject.suffix == "row":
        return True
    if wanted.verbs and entry.verb not in wanted.verbs:
        return False
    if (
        entry.verb == "updated"
        and wanted.changed
        and not any(name in wanted.changed for name in entry.changed)
    ):
        return False
    in_workspace = not wanted.workspaces or subject.workspace in wanted.workspaces
    return in_workspace and (not wanted.entities or subject.entity in wanted.entities)


class Broker:
    """The stream as a list; stands in for the reader. What retention took stays in ``all``."""

    def __init__(self) -> None:
        self.all: list[Entry] = []
        self.epoch = ""
        self.first = 1
        self.last = 0

    def begin(self, epoch: str) -> None:
        """Another stream, still empty."""
        self.all = []
        self.epoch = epoch
        self.first, self.last = 1, 0

    def append(self, message: Any, place: fmt.CommitPlace | None, step: int) -> None:
        """Stores a row's message, or one of the named others, ``step`` sequences on. The name of a row's verb is a
        domain event that poses as one."""
        self.last += step
        headers = {fmt.VERB: "made"}
        if isinstance(message, tuple):
            workspace, kind, entity, headers[fmt.VERB], headers[fmt.CHANGED] = message
            subject = str(fmt.Subject(workspace, kind, entity))
        elif message == "mark":
            subject = fmt.POSITION_SUBJECT
        elif message == "producer":
            subject = fmt.producer_subject("position")
        else:
            if message in fmt.ROW_VERBS:
                headers[fmt.VERB] = message
            subject = "zephyr.odd" if message == "foreign" else str(fmt.Subject(A, "note", "y", "event"))
        if place is not None:
            headers[fmt.COMMIT] = str(place)
            headers[fmt.FENCE_SUBJECT] = fmt.OWNER_SUBJECT
        payload = b"\x0a\x20" + b"i" * 32 if self.last % 7 else b"\x0a\xff\x03" + b"i" * 511
        self.all.append(make_entry(self.epoch, subject, headers, payload, self.last, self.last * 10))

    async def state(self) -> StreamState:
        await asyncio.sleep(0)
        return StreamState(self.epoch, self.first, self.last)

    async def timestamp_ns(self, sequence: int) -> int | None:
        await asyncio.sleep(0)
        found = [entry for entry in self.all if entry.sequence == sequence >= self.first]
        return found[0].timestamp_ns if found else None

    async def page(self, epoch: str, after: int) -> list[Entry]:
        await asyncio.sleep(0)
        left = [entry for entry in self.all if entry.sequence > after and entry.sequence >= self.first]
        return left[:PAGE]


class LiveSource:
    """Stands in for a source that is live."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def proven(self) -> StreamState:
        return await self._broker.state()


@dataclass(eq=False)
class Listener:
    """A subscription, what it wanted, and what it was told. ``messages`` and ``bytes`` are the credit that is
    left of what was granted; None for no bound."""

    subscriber: Subscriber
    start: pb.Start
    history: list[Entry]
    task: asyncio.Task[None] | None = None
    begin: int = -1
    through: int = -1
    over: set[int] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    messages: int | None = None
    bytes: int | None = None
    missing: set[int] = field(default_factory=set)
    last: int = 0

    def hear_gap(self, gap: pb.Gap) -> None:
        """Each is told once and in its turn, and nothing is stored there."""
        told = set(range(gap.after + 1, gap.through + 1))
        assert told
        assert not told & self.missing
        assert not told & {entry.sequence for entry in self.history}
        assert self.last <= gap.after
        self.missing |= told
        self.last = gap.through

    def missed(self, through: int) -> set[int]:
        """What is missing up to a sequence."""
        return set(range(self.begin + 1, through + 1)) - {entry.sequence for entry in self.history}

    def grant(self, messages: int, size: int) -> None:
        """Allows more, where there is a bound."""
        self.subscriber.grant(messages, size)
        self.messages = None if self.messages is None else self.messages + messages
        self.bytes = None if self.bytes is None else self.bytes + size

    def spend(self, frame: pb.SubscribeResponse) -> None:
        """Holds the events of a frame against the credit: each must begin while there is some."""
        for event in frame.events.events:
            if self.messages is not None:
                assert self.messages > 0
                self.messages -= 1
            if self.bytes is not None:
                assert self.bytes > 0
                self.bytes -= pb.Events(events=[event]).ByteSize()
