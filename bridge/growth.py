"""How fast the stream grows, with what others store in it: their messages evict the bridge's marks as well.

The broker is asked for its counts, the sooner again the faster a limit comes nearer. Bytes of others
are not told by it once old messages are evicted: then they are reckoned from what is evicted, and from
the mean of what is there, whichever is more. Where the stream has no limit by number or bytes, nobody asks.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bridge.jetstream import JetStream
from bridge.stream import StreamState

_PAUSE_MIN_S = 0.01
_PAUSE_MAX_S = 0.25
_PART = 1 / 16
"""Of a limit: so much may come between two looks, as far as the next goes on as the last did."""
_BURST_PART = 1 / 2
"""Of a limit: so much may come between two looks when the fastest publisher begins right after the first."""
_BURST_MESSAGES_PER_S = 150_000
_BURST_BYTES_PER_S = 150_000_000
"""What a broker on one machine stores at most, about."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the broker counts in a stream."""

    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int


async def read_counts(jetstream: JetStream) -> Counts:
    """Asks the stream's leader.

    Raises:
        JetStreamError: there is no such stream.
        Unreachable: no answer.
    """
    state = (await jetstream.api(f"STREAM.INFO.{jetstream.stream}"))["state"]
    return Counts(*(int(state[key]) for key in ("first_seq", "last_seq", "messages", "bytes")))


class Growth:
    """What is known of one stream's growth. ``limits`` are the stream's."""

    def __init__(self, limits: StreamState) -> None:
        self._max_msgs = limits.max_msgs
        self._max_bytes = limits.max_bytes
        self._before: Counts | None = None
        self._looked_at = 0.0
        self._due_at = 0.0 if limits.max_msgs or limits.max_bytes else math.inf
        lasts_s = min(
            (limits.max_msgs or math.inf) / _BURST_MESSAGES_PER_S,
            (limits.max_bytes or math.inf) / _BURST_BYTES_PER_S,
        )
        self._pause_max_s = max(_PAUSE_MIN_S, min(_PAUSE_MAX_S, _BURST_PART * lasts_s))
        self._own = self._own_bytes = 0

    @property
    def pause_s(self) -> float:
        """How long until the broker is to be asked."""
        return max(0.0, self._due_at - time.monotonic())

    def stored(self, count: int, size: int) -> None:
        """So many messages and bytes the bridge stored itself."""
        self._own += count
        self._own_bytes += size

    def looked(self, now: Counts) -> int:
        """Takes what the broker counts; gives how many bytes others stored since it was asked before, about."""
        at, before = time.monotonic(), self._before
        elapsed_s = max(at - self._looked_at, 1e-3)
        own, own_bytes = self._own, self._own_bytes
        self._before, self._looked_at = now, at
        self._own = self._own_bytes = 0
        if before is None:
            self._due_at = at + _PAUSE_MIN_S
            return 0
        count = now.last_sequence - before.last_sequence
        mean = now.bytes // max(1, now.messages)
        evicted = (now.first_sequence - before.first_sequence) * (before.bytes // max(1, before.messages))
        size = max(0, now.bytes - before.bytes + evicted)
        others = max(size - own_bytes, max(0, count - own) * mean) if count > own else 0
        fill = max(
            count / self._max_msgs if self._max_msgs else 0.0,
            max(size, others) / self._max_bytes if self._max_bytes else 0.0,
        )
        pause_s = _PART * elapsed_s / fill if fill else self._pause_max_s
        self._due_at = at + min(self._pause_max_s, max(_PAUSE_MIN_S, pause_s))
        return others
