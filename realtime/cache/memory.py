"""A cache in one process: the least recently used entities go first.

It is what a server without Redis runs on, and the plain statement of the rules that the
scripts of ``redis.py`` follow; one contract suite holds both. In one event loop a check
and its mutation share no await, so nothing here needs a lock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from realtime.cache.protocol import TOMBSTONE_TTL_S, Cached, Clear, Forget, Put, Write, place_of
from realtime.cursor import Cursor


@dataclass(frozen=True, slots=True)
class _Held:
    place: str
    cached: Cached
    expires_at: float | None

    @property
    def is_fill(self) -> bool:
        return self.cached.cursor is None

    @property
    def size(self) -> int:
        return len(self.cached.model or b"")


class MemoryCache:
    """A bounded ``Cache`` in memory: at most ``max_entries`` states of ``max_bytes`` together.

    ``clock`` gives seconds.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._bytes = 0
        self._cleared: dict[str, Cursor] = {}
        self._watermark: Cursor | None = None

    async def get(self, kind: str, entity_id: str) -> Cached | None:
        key = (kind, entity_id)
        held = self._live(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held.cached

    async def fill(self, kind: str, entity_id: str, model: bytes, ttl_s: float) -> bool:
        key = (kind, entity_id)
        if self._live(key) is not None:
            return False
        place = place_of(self._watermark) if self._watermark else ""
        self._store(key, _Held(place, Cached(model, None), self._clock() + ttl_s))
        return True

    async def apply(
        self, writes: Sequence[Write], after: Cursor | None = None, through: Cursor | None = None
    ) -> bool:
        mark = place_of(self._watermark) if self._watermark else ""
        if after is not None and mark < place_of(after):
            return False
        for write in writes:
            place = place_of(write.cursor)
            if place <= mark:
                continue
            if isinstance(write, Clear):
                cleared = self._cleared.get(write.kind)
                if cleared is None or place_of(cleared) < place:
                    self._cleared[write.kind] = write.cursor
            else:
                self._write(write, place)
        if through is not None and place_of(through) > mark:
            self._watermark = through
        return True

    async def watermark(self) -> Cursor | None:
        return self._watermark

    async def reset(self, watermark: Cursor | None) -> None:
        if self._watermark == watermark:
            self.lose()

    async def close(self) -> None:
        self.lose()

    def lose(self) -> None:
        """Everything is gone, as after a FLUSHALL."""
        self._held.clear()
        self._bytes = 0
        self._cleared.clear()
        self._watermark = None

    def __len__(self) -> int:
        return len(self._held)

    def _live(self, key: tuple[str, str]) -> _Held | None:
        """What is held and still says something; what expired is dropped on the way."""
        held = self._held.get(key)
        if held is None:
            return None
        if held.expires_at is not None and held.expires_at <= self._clock():
            self._drop(key)
            return None
        cleared = self._cleared.get(key[0])
        if cleared is not None and held.place < place_of(cleared):
            # A filled row may have been written after the TRUNCATE: then nothing is known.
            return None if held.is_fill else _Held(place_of(cleared), Cached(None, cleared), None)
        return held

    def _write(self, write: Put | Forget, place: str) -> None:
        key = (write.kind, write.entity_id)
        held = self._held.get(key)
        # A fill stands at a watermark of its time: what gets here is newer.
        if held is not None and held.place >= place:
            return
        if isinstance(write, Forget):
            self._drop(key)
            return
        expires_at = self._clock() + TOMBSTONE_TTL_S if write.model is None else None
        self._store(key, _Held(place, Cached(write.model, write.cursor), expires_at))

    def _store(self, key: tuple[str, str], held: _Held) -> None:
        self._drop(key)
        self._held[key] = held
        self._bytes += held.size
        while self._held and (len(self._held) > self._max_entries or self._bytes > self._max_bytes):
            self._drop(next(iter(self._held)))

    def _drop(self, key: tuple[str, str]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.size
