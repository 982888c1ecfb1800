"""What one connection may hold back for its client, over all of its subscriptions."""

from __future__ import annotations

import asyncio


class Budget:
    """Bytes of events that wait in the mailboxes of one connection. ``max_bytes`` is soft by one event
    a subscription: an empty mailbox may take a small one whatever the others hold."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._room: asyncio.Event | None = None  # none until somebody waits: most connections never do

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may wait. Anything may while nothing does."""
        return self.used + size <= self.max_bytes or not self.used

    def charge(self, size: int) -> None:
        """So many bytes more wait."""
        self.used += size

    def refund(self, size: int) -> None:
        """So many bytes wait no longer."""
        self.used -= size
        if size and self._room is not None:
            self._room.set()
            self._room = None

    async def room(self) -> None:
        """Waits until something was refunded."""
        if self._room is None:
            self._room = asyncio.Event()
        await self._room.wait()
