"""Saves a subscription's cursor in its store: after what was handled, and not too often.

While events come faster, at most every ``every_s`` seconds; and always before the
subscription waits for something new. What is not saved yet comes again after a crash.
"""

from __future__ import annotations

import asyncio

from realtime.client.stores import CursorStore
from realtime.errors import ArgumentInvalid


class CursorKeeper:
    """The cursor of one name in one store."""

    def __init__(self, store: CursorStore, name: str, every_s: float) -> None:
        if not name:
            raise ArgumentInvalid("name", "a store needs the subscription's name", "pass name='…'")
        self._store = store
        self._name = name
        self._every_s = every_s
        self._handled = b""
        self._saved = b""
        self._due_at = 0.0

    async def load(self) -> bytes:
        """The cursor of an earlier run; empty when there is none."""
        self._handled = self._saved = await self._store.load(self._name) or b""
        return self._saved

    async def handled(self, cursor: bytes) -> None:
        """Everything up to a cursor was handled; an empty one says nothing."""
        if cursor:
            self._handled = cursor
            if asyncio.get_running_loop().time() >= self._due_at:
                await self.save()

    async def save(self) -> None:
        """Saves what was not saved yet."""
        cursor = self._handled
        if cursor != self._saved:
            await self._store.save(self._name, cursor)
            self._saved = cursor
            self._due_at = asyncio.get_running_loop().time() + self._every_s
