"""Broadcasts that were read and wait for the iteration, beside the frames of the stream.

They take no credit, so they are bounded here: the oldest frame goes when there are too many, and
counts as dropped. A handler that is slow gets the stream's frames first, and these in every fourth turn.
"""

from __future__ import annotations

from collections import deque

from protos.events.v1 import stream_pb2 as pb

_MAX_EVENTS = 256
_MAX_BYTES = 1024 * 1024
_STORED_FRAMES = 4


class Aside:
    """Of one connection."""

    def __init__(self) -> None:
        self._frames: deque[tuple[pb.SubscribeResponse, int]] = deque()
        self._events = 0
        self._bytes = 0
        self._dropped = 0
        self._stored = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, frame: pb.SubscribeResponse, size: int) -> None:
        """Takes a frame of so many bytes; one of any size when there is none."""
        count = len(frame.broadcasts.events)
        while self._frames and (self._events + count > _MAX_EVENTS or self._bytes + size > _MAX_BYTES):
            dropped = self.take().broadcasts
            self._dropped = dropped.dropped + len(dropped.events)
        self._frames.append((frame, size))
        self._events += count
        self._bytes += size

    def take(self) -> pb.SubscribeResponse:
        """The oldest frame; it says of all that were dropped before it."""
        frame, size = self._frames.popleft()
        self._events -= len(frame.broadcasts.events)
        self._bytes -= size
        frame.broadcasts.dropped += self._dropped
        self._dropped = self._stored = 0
        return frame

    def has_turn(self) -> bool:
        """Whether one of these goes before a frame of the stream that is there as well."""
        if not self._frames:
            return False
        self._stored += 1
        return self._stored > _STORED_FRAMES
