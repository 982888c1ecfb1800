"""Waits until what a server reads is at least as new as a token says.

A token is a cursor of the stream, or a WAL position (``zephyr_cursor()`` in SQL): an acknowledgement,
a cursor and a read's ``min_cursor`` are the same thing. The hub must have passed it, and the cache behind the hub.
A WAL position is found in the bridge's position marks, and while somebody waits for one the bridge is asked to
mark. Who cannot wait longer reads Postgres, which has it by definition: so this says yes or no, and never fails
because of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from realtime.cursor import Cursor, WalCursor
from realtime.errors import CursorReset, RealtimeError
from realtime.hub import Hub
from realtime.projector import Projector
from realtime.shared_reads import SharedReads

MOST_S = 5.0
"""For so long a read waits at most, whatever its deadline is."""
_ASK_AGAIN_S = 1.0
"""A bridge that was away when it was asked is asked again."""


class ReadAfter:
    """One server's. ``ask_for_mark`` has the bridge mark soon how far the source is, and may raise RealtimeError."""

    def __init__(self, hub: Hub, projector: Projector, ask_for_mark: Callable[[], Awaitable[object]]) -> None:
        self._hub = hub
        self._projector = projector
        self._ask_for_mark = ask_for_mark
        self._asks = SharedReads(1)

    async def cache_has(self, token: Cursor | WalCursor, limit_s: float) -> bool:
        """Whether the cache has, within so many seconds, what the token says.

        Raises:
            CursorReset: the token is of another history: EPOCH_CHANGED.
        """
        self._check(token)
        try:
            async with asyncio.timeout(max(0.0, limit_s)):
                return await self._wait(token)
        except TimeoutError:
            self._check(token)  # another history may have begun meanwhile
            return False

    async def _wait(self, token: Cursor | WalCursor) -> bool:
        # Where the stream stands still it is not worth waiting for.
        if self._projector.is_down or self._hub.source_position().stalled:
            return False
        if isinstance(token, WalCursor):
            try:
                await self._passed(token)
            except RealtimeError as exc:
                if isinstance(exc, CursorReset):
                    raise
                return False
            sequence = self._hub.position.sequence
        else:
            sequence = token.sequence
            await self._hub.reached(sequence)
            self._check(token)
        await self._projector.reached(self._hub.epoch, sequence)
        return True

    async def _passed(self, token: WalCursor) -> None:
        """Returns once a position mark at or behind the token was released."""
        hub = self._hub
        while not self._is_passed(token):
            await self._asks.ask("mark", self._ask_for_mark)
            try:
                async with asyncio.timeout(_ASK_AGAIN_S):
                    while not self._is_passed(token):
                        await hub.moved()
            except TimeoutError:
                continue

    def _is_passed(self, token: WalCursor) -> bool:
        self._check(token)
        return bool(self._hub.system_id) and self._hub.source.wal_lsn >= token.lsn

    def _check(self, token: Cursor | WalCursor) -> None:
        hub = self._hub
        if isinstance(token, WalCursor):
            is_other = bool(hub.system_id) and token.system_id != hub.system_id
            text = f"min_cursor is of the Postgres {token.system_id}, the stream of {hub.system_id}"
        else:
            is_other = bool(hub.epoch) and token.epoch != hub.epoch
            text = f"min_cursor is of epoch {token.epoch}, the stream is of {hub.epoch}"
        if is_other:
            error = CursorReset("EPOCH_CHANGED", text)
            error.mend = "read without min_cursor, or with a token of now"
            raise error
