"""A lean reader under nats-py's connection: it sees the bytes first.

Authentication, TLS, pings, errors and reconnecting stay nats-py's: what does not belong to a
sink goes to nats-py's own parser, frame by frame and unchanged. What of nats-py is relied on:
docs/decisions/015-frames-are-read-from-the-bytes.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from realtime.lean import Scanner, Sink

_MAX_LINE_BYTES = 1024 * 1024
"""A line of the protocol that is longer is none; INFO is the longest."""


class Tap(Parser):
    """nats-py's parser behind a scanner. What is cut off at the end of a read waits here until it is whole."""

    def __init__(self, connection: NatsClient) -> None:
        self.scanner = Scanner()
        self.pace: Callable[[int], Awaitable[None]] | None = None
        """Awaited before so many bytes are taken."""
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._needed = 0
        self._resets = 0
        super().__init__(connection)

    def reset(self) -> None:
        """Forgets what was read: the connection is another. nats-py calls it."""
        super().reset()
        self._tail = []
        self._tail_bytes = 0
        self._resets += 1

    def take_over(self, former: Parser) -> None:
        """Goes on with what another parser has begun."""
        self.state = former.state
        self.needed = former.needed
        self.header_needed = former.header_needed
        self.msg_arg = former.msg_arg
        if former.state != AWAITING_CONTROL_LINE:
            self.buf = former.buf
        elif former.buf:
            self._keep(bytes(former.buf), len(former.buf) + 1)

    async def parse(self, data: bytes = b"") -> None:
        """Takes what was read.

        Raises:
            ProtocolError: it is not NATS' protocol.
        """
        resets = self._resets
        if self.pace is not None:
            await self.pace(len(data))
            if resets != self._resets:
                return
        if self._tail:
            self._tail.append(data)
            self._tail_bytes += len(data)
            if self._tail_bytes < self._needed:
                return
            data = b"".join(self._tail)
            self._tail = []
            self._tail_bytes = 0
        scanner = self.scanner
        at, size = 0, len(data)
        try:
            while at < size:
                end = at + self._unfinished()
                if end == at:
                    at = scanner.scan(data, at)
                    end = scanner.end
                    if at == size:
                        break
                    if not end:
                        self._keep(data[at:], scanner.needed)
                        break
                await super().parse(data[at:end])
                if resets != self._resets:
                    break
                at = end
        finally:
            scanner.pause()

    def _keep(self, tail: bytes, needed: int) -> None:
        if needed == len(tail) + 1 and needed > _MAX_LINE_BYTES:
            raise ProtocolError("nats: a line without an end")
        self._tail = [tail]
        self._tail_bytes = len(tail)
        self._needed = needed

    def _unfinished(self) -> int:
        """How many bytes nats-py's parser waits for, in the middle of a frame."""
        if self.state == AWAITING_CONTROL_LINE:
            # What it cannot read it keeps, and waits for more of it.
            return _MAX_LINE_BYTES if self.buf else 0
        return max(0, int(self.needed) + 2 - len(self.buf))


def tap(connection: NatsClient) -> Tap:
    """The tap under a connection, put there if it is not yet."""
    former = connection._ps
    if isinstance(former, Tap):
        return former
    parser = Tap(connection)
    parser.take_over(former)
    connection._ps = parser
    return parser


class Listening:
    """A subscription whose messages go to a sink, from ``listen`` to ``close``."""

    def __init__(self, connection: NatsClient, subscription: Subscription) -> None:
        self._connection = connection
        self._subscription = subscription

    async def close(self) -> None:
        """Ends it; nothing comes after."""
        tap(self._connection).scanner.sinks.pop(_name(self._subscription), None)
        if self._connection.is_connected:
            await self._subscription.unsubscribe()


async def listen(connection: NatsClient, subject: str, sink: Sink) -> Listening:
    """Subscribes; what comes goes to the sink.

    Raises:
        nats.errors.Error, OSError: the connection is closed or broken.
    """
    subscription = await connection.subscribe(subject)
    tap(connection).scanner.sinks[_name(subscription)] = sink
    return Listening(connection, subscription)


def _name(subscription: Subscription) -> bytes:
    return b"%d" % subscription._id
