"""Makes one connection after the other: when, for how long it is tried, and on which channel.

A try waits as long as backoff says, or as the server said when it went away. ``patience_s`` counts
from the first try, or from the loss of a connection that had proved good.
"""

from __future__ import annotations

import asyncio

import grpc

from protos.common.v1 import error_pb2 as codes
from realtime.client.backoff import Backoff
from realtime.client.channel import Channel
from realtime.client.connection import Connection, GoingAway, Silent, open_connection
from realtime.client.start import SnapshotStart, Start
from realtime.client.token import Caller
from realtime.client.wish import Wish
from realtime.errors import RealtimeError, RequestError, Unavailable


class Dialer:
    """Of one subscription."""

    def __init__(
        self, channel: Channel, caller: Caller, wish: Wish, silence_s: float, patience_s: float | None
    ) -> None:
        self._channel = channel
        self._caller = caller
        self._wish = wish
        self._silence_s = silence_s
        self.patience_s = patience_s
        self._backoff = Backoff()
        self._used: grpc.aio.Channel | None = None
        self._lost: Unavailable | None = None
        self._away_since: float | None = None

    async def dial(self, start: Start | SnapshotStart, closing: asyncio.Event) -> Connection | None:
        """A new connection, on which nothing was heard yet; None when the subscription is closed meanwhile.

        Raises:
            Unavailable: the patience is over; says why the last try failed.
            RealtimeError: the client was closed.
        """
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
        if self._lost is not None:
            pause_s = (
                self._lost.retry_after_s if isinstance(self._lost, GoingAway) else self._backoff.next_s()
            )
            if self.patience_s is not None and now + pause_s > self._away_since + self.patience_s:
                self._away_since = None
                raise self._lost
            self._lost = None
            try:
                async with asyncio.timeout(pause_s):
                    await closing.wait()
                return None
            except TimeoutError:
                pass  # the pause is over
        self._used = self._channel.current
        return await open_connection(
            self._used, self._wish.request(start), self._wish.window, self._silence_s, self._caller
        )

    def lost(self, cause: Unavailable) -> None:
        """The connection is over, or there was none."""
        self._lost = cause
        if isinstance(cause, Silent) and self._used is not None:
            self._channel.renew(self._used)

    def outlived(self, error: RealtimeError) -> bool:
        """Whether a connection that was good ended with its token, and the next one has another."""
        return (
            isinstance(error, RequestError)
            and error.code == codes.ERROR_CODE_UNAUTHENTICATED
            and self._caller.can_renew
        )

    def proved(self) -> None:
        """The connection is good: what is lost from now on is another matter."""
        if self._away_since is not None:
            self._away_since = None
            self._backoff.reset()
