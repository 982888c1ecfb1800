"""What of a snapshot waits for its client, and the frames that it goes out in.

Items are ready-made bytes, cut into pages when they are sent: as many as the page's bounds and the
subscription's credit admit. Who reads the states puts them in here and waits for the
client when there is no room, so that a slow client holds back its own scan and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from protos.events.v1.stream_pb2 import SnapshotEnd, SnapshotPage, StreamedEvent, SubscribeResponse
from protos.wire import delimited, delimited_header, varint_field
from realtime.budget import Budget
from realtime.credit import Credit
from realtime.point import Point
from realtime.states import PAGE_BYTES, PAGE_ITEMS

_WAITING_BYTES = 2 * PAGE_BYTES
_WAITING_ITEMS = 2 * PAGE_ITEMS
_SMALL_BYTES = 64 * 1024
_PAGE_FIELD = SubscribeResponse.SNAPSHOT_PAGE_FIELD_NUMBER
_ITEMS_FIELD = SnapshotPage.ITEMS_FIELD_NUMBER
_CORRECTIONS_FIELD = SnapshotPage.CORRECTIONS_FIELD_NUMBER
_EVENT_FIELD = StreamedEvent.EVENT_FIELD_NUMBER


class Pages:
    """The mailbox of one subscription's snapshots, one after the other. ``limit`` is the most items of a page."""

    def __init__(self, page_size: int, budget: Budget) -> None:
        self.limit = min(page_size, _WAITING_ITEMS) if page_size else PAGE_ITEMS
        self.items = 0
        """How many were put in since the snapshot began."""
        self.narrowed = asyncio.Event()
        """The filter became narrower in the midst of a snapshot, which is to be begun anew."""
        self.is_under_way = True
        self._budget = budget
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._through: Point | None = None
        self._matched = 0
        self._room = asyncio.Event()
        self._is_stopped = self._is_void = False

    def begin(self) -> None:
        """A snapshot begins; what is left of an earlier one is dropped."""
        self.release()
        self.items = self._matched = 0
        self._through = None
        self.is_under_way = True
        self.narrowed.clear()
        self._is_void = False

    def void(self) -> None:
        """Drops what waits and what is still put in, until another snapshot begins."""
        self.release()
        self._through = None
        self._is_void = True
        self._room.set()

    async def put(self, items: Iterable[bytes], is_correction: bool, tell: Callable[[], object]) -> None:
        """Puts items in, waiting for the client where there is no room; ``tell`` says that there is something.
        Drops them once it is stopped."""
        for item in items:
            while not self._has_room(len(item)):
                if self._is_stopped or self._is_void:
                    return
                self._room.clear()
                tell()
                await (self._room.wait() if self._is_crowded(len(item)) else self._budget.room())
            if self._is_stopped or self._is_void:
                return
            self._waiting.append((item, is_correction))
            self._bytes += len(item)
            self._budget.charge(len(item))
            self.items += 1
        tell()

    def end(self, through: Point, matched: int) -> None:
        """The snapshot is whole: what was put in leads to ``through``, ``matched`` events of the stream among it."""
        if not self._is_void:
            self._through, self._matched = through, matched

    async def ended(self) -> None:
        """Waits until the end was sent."""
        while self.is_under_way and not self._is_stopped:
            self._room.clear()
            await self._room.wait()

    def stop(self) -> None:
        """Takes nothing in any more."""
        self._is_stopped = True
        self._room.set()

    def release(self) -> None:
        """Drops what waits."""
        self._waiting.clear()
        self._budget.refund(self._bytes)
        self._bytes = 0

    @property
    def waits(self) -> bool:
        """Whether there are items, which need credit."""
        return bool(self._waiting)

    def is_due(self, credit: Credit) -> bool:
        """Whether there is something to be sent now."""
        if self._waiting:
            return credit.is_open
        return self.is_under_way and self._through is not None

    def take_page(self, credit: Credit) -> bytes:
        """The next page as a field of a response. Only when there are items and credit."""
        is_correction = self._waiting[0][1]
        parts: list[bytes] = []
        size = 0
        while self._waiting and len(parts) < self.limit and size < PAGE_BYTES:
            item, is_other = self._waiting[0]
            size += len(item)
            if is_other != is_correction or (parts and not credit.covers(len(parts) + 1, size, len(item))):
                size -= len(item)
                break
            parts.append(item)
            self._waiting.popleft()
        credit.spend(len(parts), size)
        self._bytes -= size
        self._budget.refund(size)
        if len(self._waiting) * 2 <= _WAITING_ITEMS and self._bytes * 2 <= _WAITING_BYTES:
            self._room.set()
        tail = varint_field(_CORRECTIONS_FIELD, is_correction)
        return b"".join((delimited_header(_PAGE_FIELD, size + len(tail)), *parts, tail))

    def take_end(self) -> tuple[SnapshotEnd, Point, int]:
        """The end, the point that it leads to, and how many events of the stream were among the items."""
        assert self._through is not None
        self.is_under_way = False
        self._room.set()
        return SnapshotEnd(items=self.items), self._through, self._matched

    def _is_crowded(self, size: int) -> bool:
        """Whether its own items leave no room."""
        return bool(self._waiting) and (
            len(self._waiting) >= _WAITING_ITEMS or self._bytes + size > _WAITING_BYTES
        )

    def _has_room(self, size: int) -> bool:
        if self._is_crowded(size):
            return False
        return self._budget.has_room(size) or (not self._waiting and size <= _SMALL_BYTES)


def state_item(event: bytes) -> bytes:
    """An item that was not read from the stream, of an encoded event: no sequence and no cursor."""
    return delimited(_ITEMS_FIELD, delimited(_EVENT_FIELD, event))
