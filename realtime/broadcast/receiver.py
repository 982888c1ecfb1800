"""Reads the broadcasts of all servers, and gives them to who listens here.

What was read waits in a bounded queue. It is worked off by slices, one a turn of the loop, and few
connections may send in each, so that stored events never wait for more than a slice. When
broadcasts come faster than that, the oldest are dropped here, before they are looked at.
"""

from __future__ import annotations

import asyncio
from collections import deque

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from protos.events.v1 import stream_format as fmt
from realtime.broadcast.audience import Audience
from realtime.broadcast.cast import read_cast
from realtime.errors import SourceUnavailable
from realtime.lean import Message, Sink
from realtime.tap import listen

log = structlog.get_logger("broadcasts")

_MAX_MESSAGES = 1024
_MAX_BYTES = 4 * 1024 * 1024
_SLICE = 64
"""Broadcasts read and given to listeners in one turn of the loop; one broadcast goes to all of its listeners."""
_WAKES = 8
"""Connections that send a frame in one turn of the loop."""
_SAY_EVERY_S = 10.0


class Receiver:
    """``dropped`` counts what came faster than this server could follow, ``refused`` what was no broadcast."""

    def __init__(self, connection: NatsClient, audience: Audience, max_bytes: int) -> None:
        self._connection = connection
        self._audience = audience
        self._max_bytes = max_bytes
        self._queue: deque[Message] = deque()
        self._queue_bytes = 0
        self._work = asyncio.Event()
        self._sink = Sink(self._arrived)
        self.dropped = self.refused = 0
        self._said = (0, 0)
        self._say_at = 0.0
        audience.on_sleeper = self._work.set
        audience.on_change = self._audience_changed
        self._audience_changed()

    async def run(self) -> None:
        """Receives until it is cancelled. The connection's subscription outlives the broker's restarts.

        Raises:
            SourceUnavailable: the connection is closed.
        """
        try:
            listening = await listen(self._connection, fmt.LIVE_SUBJECTS, self._sink)
        except (nats.errors.Error, OSError) as exc:
            raise SourceUnavailable(f"NATS went away: {exc or type(exc).__name__}") from exc
        try:
            while True:
                if not self._queue and not self._audience.sleepers:
                    self._work.clear()
                    await self._work.wait()
                self._give()
                self._audience.wake(_WAKES)
                self._say()
                await asyncio.sleep(0)
        finally:
            self._sink.is_open = False
            await listening.close()

    def _arrived(self) -> None:
        """Takes over what one read brought, which is bounded by nats-py, and drops what is too much."""
        queue = self._queue
        for message in self._sink.take():
            queue.append(message)
            self._queue_bytes += _size(message)
        while len(queue) > _MAX_MESSAGES or self._queue_bytes > _MAX_BYTES:
            self._queue_bytes -= _size(queue.popleft())
            self.dropped += 1
        self._work.set()

    def _give(self) -> None:
        queue, audience = self._queue, self._audience
        left = _SLICE
        while queue and left > 0:
            message = queue.popleft()
            self._queue_bytes -= _size(message)
            cast = read_cast(message, self._max_bytes)
            left -= 1
            if cast is None:
                self.refused += 1
                continue
            try:
                left -= audience.give(cast)
            except Exception:
                # A bug: it costs one broadcast, and not the server.
                log.exception("a broadcast failed", subject=str(cast.entry.subject))

    def _audience_changed(self) -> None:
        # Without a listener what comes is not even kept.
        self._sink.is_open = len(self._audience) > 0

    def _say(self) -> None:
        now = asyncio.get_running_loop().time()
        counts = self.dropped, self.refused
        if counts == self._said or now < self._say_at:
            return
        dropped, refused = counts[0] - self._said[0], counts[1] - self._said[1]
        self._said, self._say_at = counts, now + _SAY_EVERY_S
        log.warning("broadcasts were not given on", came_too_fast=dropped, were_none=refused)


def _size(message: Message) -> int:
    return len(message[2]) + len(message[3])
