"""A history of notes: its places and states, a projector without its stream, and what it ends in."""

from __future__ import annotations

from collections.abc import Sequence

from realtime.cache import Cache, Cached, Clear, Forget, Put, Write
from realtime.cursor import Cursor

EPOCH = "0190a0000000000000aa"


def at(sequence: int, epoch: str = EPOCH) -> Cursor:
    return Cursor(epoch, sequence, sequence * 1000)


def put(entity_id: str, sequence: int, model: bytes | None = b"", epoch: str = EPOCH) -> Put:
    return Put("note", entity_id, at(sequence, epoch), f"{sequence}".encode() if model == b"" else model)


def state(sequence: int) -> Cached:
    return Cached(f"{sequence}".encode(), at(sequence))


class HistoryWriter:
    """A projector without its stream: one history in batches that end at ``cuts``."""

    def __init__(self, cache: Cache, history: Sequence[tuple[str, str]], cuts: set[int]) -> None:
        self._cache = cache
        self._history = history
        self._ends = sorted({cut for cut in cuts if cut < len(history)} | {len(history)})
        self._position: Cursor | None = None

    async def step(self) -> bool:
        """One batch; False when none was left."""
        begin = self._position.sequence if self._position else 0
        end = next((end for end in self._ends if end > begin), None)
        if end is None:
            # As on an idle stream: the watermark is written again.
            end = len(self._history)
        writes = [write for number in range(begin + 1, end + 1) if (write := self._write(number))]
        if await self._cache.apply(writes, self._position, at(end)):
            self._position = at(end)
            return end > begin
        self._position = await self._cache.watermark()
        return True

    async def finish(self) -> None:
        while await self.step():
            pass

    def _write(self, number: int) -> Write | None:
        action, entity_id = self._history[number - 1]
        if action == "clear":
            return Clear("note", at(number))
        if action == "forget":
            return Forget("note", entity_id, at(number))
        if action == "none":
            return None
        return put(entity_id, number, None if action == "delete" else b"")


def expected_of(history: Sequence[tuple[str, str]], entity_id: str) -> Cached | None:
    """The state that the history ends in; Cached(None, None) when it may be gone or unknown, None when forgotten."""
    known: Cached | None = Cached(None, None)
    for number, (action, target) in enumerate(history, start=1):
        if action == "clear":
            known = Cached(None, None)
        elif target == entity_id and action == "put":
            known = state(number)
        elif target == entity_id and action == "delete":
            known = Cached(None, at(number))
        elif target == entity_id and action == "forget":
            known = None
    return known
