"""Events that were read back for one subscription and wait for its client; or that it left a lane with.

Bounded in events and bytes, and with the other subscriptions of its connection by their budget.
An empty backlog takes one event of any size, a small one whatever the budget says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from realtime.budget import Budget
from realtime.frames import Framed
from realtime.limits import MailboxLimits

_SMALL_BYTES: Final = 64 * 1024
_EMPTY: Final[deque[Framed]] = deque(maxlen=0)
"""Of all backlogs that hold nothing: nearly always, and a deque of one's own has room for 64 from the first."""


class Backlog:
    """``items`` in the stream's order, and the ``bytes`` of their frames."""

    def __init__(self, limits: MailboxLimits, budget: Budget) -> None:
        self.items: deque[Framed] = _EMPTY
        self.bytes = 0
        self._limits = limits
        self._budget = budget
        self._is_full = False
        self._room: asyncio.Event | None = None  # none until somebody waits

    def put(self, item: Framed) -> bool:
        """Takes an event, if there is room."""
        size = len(item[2])
        count = len(self.items)
        if (count and (count >= self._limits.max_events or self.bytes + size > self._limits.max_bytes)) or (
            not self._budget.has_room(size) and (count or size > _SMALL_BYTES)
        ):
            self._is_full = True
            return False
        if not count:
            self.items = deque()
        self.items.append(item)
        self.bytes += size
        self._budget.charge(size)
        return True

    def extend(self, items: list[Framed]) -> bool:
        """Takes all of these, or none of them if the connection has no room."""
        size = sum([len(frame) for _, _, frame in items])
        if not self._budget.has_room(size):
            return False
        if items:
            if not self.items:
                self.items = deque()
            self.items.extend(items)
        self.bytes += size
        self._budget.charge(size)
        return True

    def drop(self, count: int) -> None:
        """So many of the first were sent, or are not wanted any more."""
        size = 0
        for _ in range(count):
            size += len(self.items.popleft()[2])
        if not self.items:
            self.items = _EMPTY
        self._refund(size)

    def keep(self, wanted: Callable[[Framed], bool]) -> None:
        """Drops what is not wanted any more."""
        before = self.bytes
        self.items = deque(item for item in self.items if wanted(item)) or _EMPTY
        self._refund(before - sum([len(frame) for _, _, frame in self.items]))

    def renumber(self, stored: int, internal: int) -> None:
        """Moves the counts of every point by the same amount."""
        if self.items:
            self.items = deque(
                (entry, point.renumbered(stored, internal), frame) for entry, point, frame in self.items
            )

    def refuse(self) -> None:
        """There is no room, for another reason than its own: ``room`` waits until ``admit``."""
        self._is_full = True

    def admit(self) -> None:
        """Ends ``room``."""
        self._is_full = False
        if self._room is not None:
            self._room.set()
            self._room = None

    async def room(self) -> bool:
        """Waits until it is half empty, and for the connection; False when it has to be asked again."""
        if self._is_full:
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()
        if not self.items or self._budget.has_room(1):
            return True
        await self._budget.room()
        return False

    def release(self) -> None:
        """Gives everything back to the budget."""
        self._budget.refund(self.bytes)
        self.items = _EMPTY
        self.bytes = 0

    def _refund(self, size: int) -> None:
        self.bytes -= size
        self._budget.refund(size)
        if len(self.items) * 2 <= self._limits.max_events and self.bytes * 2 <= self._limits.max_bytes:
            self.admit()
