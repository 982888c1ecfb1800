"""The events of a publisher that have no result yet, in their order: those that wait, and those that were sent.

The server's window bounds them. They are kept as the bytes that are sent, so that what is sent
again after a lost connection is the same. Does no I/O.
"""

from __future__ import annotations

from collections import deque

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from protos.wire import delimited_header, varint
from realtime.client.published import ALREADY_STORED, Publication
from realtime.errors import NotPublished, OutcomeUnknown, RealtimeError
from realtime.status import from_error

MAX_EVENTS = 1000
"""Of one request, by the contract."""
MAX_BYTES = 512 * 1024
"""Of one request: more would only wait on the way. An event that is larger travels alone."""
_EVENTS = pb.PublishStreamRequest.EVENTS_FIELD_NUMBER
_EVENT = pb.ProducedEvents.EVENTS_FIELD_NUMBER


class Unacknowledged:
    """``add`` one after the other; ``request`` gives what is to be sent next. ``most_events`` is a bound of one's
    own, beside the server's."""

    def __init__(self, most_events: int | None = None) -> None:
        self._most_events = most_events
        self._waiting: deque[Publication] = deque()
        self._sent: deque[Publication] = deque()
        self._bytes = 0
        self._max_events = 1
        self._max_bytes = 1

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self._bytes

    def grant(self, window: pb.PublishWindow) -> None:
        """How much there may be from now on."""
        self._max_events = max(1, window.events)
        if self._most_events is not None:
            self._max_events = min(self._max_events, self._most_events)
        self._max_bytes = max(1, window.bytes)

    def has_room(self, size: int) -> bool:
        """Whether an event of so many bytes may be added. One may be larger than the whole window."""
        count = len(self._waiting) + len(self._sent)
        return not count or (count < self._max_events and self._bytes + size <= self._max_bytes)

    def add(self, publication: Publication) -> None:
        """One more, behind all others."""
        self._waiting.append(publication)
        self._bytes += len(publication.data)

    def request(self) -> bytes:
        """As many as wait and fit into one request, which now are sent; empty when none waits."""
        waiting, sent = self._waiting, self._sent
        parts: list[bytes] = []
        size = 0
        while waiting and len(parts) < MAX_EVENTS:
            publication = waiting[0]
            data = publication.data
            size += len(data)
            if size > MAX_BYTES and parts:
                size -= len(data)
                break
            publication.was_sent = True
            parts.append(data)
            sent.append(waiting.popleft())
        return b"".join((delimited_header(_EVENTS, size), *parts)) if parts else b""

    def settle(self, result: pb.PublishResult) -> Publication:
        """What became of the first that was sent.

        Raises:
            Unavailable: it may be stored or not, and so is to be sent again.
            RealtimeError: the result is not of that one.
        """
        if not self._sent or self._sent[0].sequence != result.sequence:
            due = self._sent[0].sequence if self._sent else "nothing"
            raise RealtimeError(
                f"the server gave the result of event {result.sequence}, and {due} was due",
                "see the server's version",
            )
        kind = result.WhichOneof("result")
        if kind == "error" and result.error.code == codes.ERROR_CODE_UNAVAILABLE:
            raise from_error(result.error)
        publication = self._sent.popleft()
        self._bytes -= len(publication.data)
        if kind == "stored":
            publication.stored(result.stored)
        elif kind == "already_stored":
            publication.stored(ALREADY_STORED)
        else:
            publication.fail(from_error(result.error))
        return publication

    def rewind(self) -> None:
        """The connection is lost: what was sent and has no result is to be sent again, in its order."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def abandon(self, cause: RealtimeError) -> list[Publication]:
        """There will be no more results; gives whose outcome so is not known, or that they were never sent."""
        self.rewind()
        abandoned = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        for publication in abandoned:
            error: RealtimeError = (
                OutcomeUnknown(publication.sequence, cause)
                if publication.was_sent
                else NotPublished(publication.sequence, cause)
            )
            error.__cause__ = cause
            publication.fail(error)
        return abandoned


def produced(sequence: int, event: bytes, expectation: bytes | None) -> bytes:
    """An event and its place as they stand in ProducedEvents, from the bytes of NewEvent and Expectation."""
    head = b"\x08" + varint(sequence) + b"\x12" + varint(len(event))
    tail = b"" if expectation is None else b"\x1a" + varint(len(expectation)) + expectation
    return b"".join((delimited_header(_EVENT, len(head) + len(event) + len(tail)), head, event, tail))
