"""What became of an event that was published."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from protos.events.v1 import publish_pb2 as pb
from realtime.errors import RealtimeError


@dataclass(frozen=True, slots=True)
class Published:
    """Where an event is stored.

    ``cursor`` is the place right after it, ``sequence`` its place in the stream, ``version`` that of the entity's
    events now. ``repeated``: an earlier call stored it. When that was so long ago that its place is not known
    any more, all but that is empty.
    """

    cursor: bytes
    sequence: int
    version: int
    event_id: str
    repeated: bool


ALREADY_STORED = Published(b"", 0, 0, "", repeated=True)


def published(stored: pb.Stored) -> Published:
    """What the server said of it."""
    return Published(stored.cursor, stored.sequence, stored.version, stored.event_id, stored.repeated)


class Publication:
    """An event that a publisher took: await it for its result, or leave it.

    ``sequence`` is its place among the producer's events. A failure that nobody asked for is told by the
    publisher's ``flush`` and at the end of its block.
    """

    __slots__ = ("_error", "_is_asked", "_stored", "_waiters", "data", "sequence", "was_sent")

    def __init__(self, sequence: int, data: bytes) -> None:
        self.sequence = sequence
        self.data = data
        self.was_sent = False
        self._stored: pb.Stored | Published | None = None
        self._error: RealtimeError | None = None
        self._is_asked = False
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def done(self) -> bool:
        """Whether its result is known."""
        return self._stored is not None or self._error is not None

    @property
    def failed(self) -> bool:
        """Whether it is known to have failed."""
        return self._error is not None

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked for the result."""
        return self._is_asked

    @property
    def error(self) -> RealtimeError | None:
        """Why it failed; None while it did not."""
        self._is_asked = self._is_asked or self._error is not None
        return self._error

    def result(self) -> Published:
        """Where it is stored.

        Raises:
            asyncio.InvalidStateError: that is not known yet.
            RequestError: the server refused it: it is not stored.
            NotPublished: it was never sent: it is not stored.
            OutcomeUnknown: it may be stored or not: the publisher ended before that was known.
        """
        if self._error is not None:
            self._is_asked = True
            raise self._error
        if self._stored is None:
            raise asyncio.InvalidStateError("its result is not known yet")
        if not isinstance(self._stored, Published):
            self._stored = published(self._stored)
        return self._stored

    def __await__(self) -> Generator[Any, None, Published]:
        if not self.done:
            self._is_asked = True
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            yield from waiter
        return self.result()

    def stored(self, where: pb.Stored | Published) -> None:
        """It is stored. The publisher calls it."""
        self._stored = where
        self._settle()

    def fail(self, error: RealtimeError) -> None:
        """It is not stored, or that is not known. The publisher calls it."""
        self._error = error
        self._settle()

    def _settle(self) -> None:
        self.data = b""
        if self._waiters is not None:
            for waiter in self._waiters:
                if not waiter.done():  # else who waited was cancelled
                    waiter.set_result(None)
            self._waiters = None
