"""One page of the past: events of a filter between two points of the stream.

What is near the live edge comes from the ring, the rest from the stream: by the broker's index
of subjects where few messages match, else as it stands. A page ends
with enough events or bytes, and also when so many messages were examined or so long
was worked: then it says how far, and the next one goes on from there. Nothing is passed over
that a page says was examined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from realtime.cursor import Cursor
from realtime.entry import Entry
from realtime.errors import CursorReset, SourceUnavailable
from realtime.filters import Filter
from realtime.hub import Hub
from realtime.jetstream import StreamReader
from realtime.subjects import subjects_of

_RING_BATCH = 256
_CHUNK_MESSAGES = 512
_CHUNK_BYTES = 2 * 1024 * 1024
_SPARSE = 8
"""The index is asked where fewer than one in so many messages match."""
_PAUSE_S = 0.05
_READERS = 4


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Where a page ends. The first event may have any size; ``work_s`` is looked at between two chunks."""

    events: int = 100
    bytes: int = 1024 * 1024
    examined: int = 10_000
    work_s: float = 2.0


@dataclass(slots=True)
class Page:
    """``frames`` are events as they stand in a response; everything up to ``through`` was examined."""

    through: Cursor
    frames: list[bytes] = field(default_factory=list)
    size: int = 0
    is_last: bool = False


Examined = tuple[list[Entry], Cursor]
"""Entries that follow what came before, and up to where all that may match is known with them."""


class Listing:
    """Pages of the stream that a hub reads. A few pages at a time are read from the broker."""

    def __init__(self, hub: Hub, reader: StreamReader) -> None:
        self._hub = hub
        self._reader = reader
        self._readers = asyncio.Semaphore(_READERS)

    @property
    def edge(self) -> Cursor:
        """Up to where a list can go now: what was released."""
        return self._hub.position.cursor(self._hub.epoch)

    async def page(
        self,
        wanted: Filter,
        after: Cursor,
        end: Cursor,
        limits: PageLimits,
        reset: asyncio.Future[CursorReset],
    ) -> Page:
        """The events after one point, up to another one at most. ``reset`` is the hub's signal since before the
        points were found: they are of its epoch while that is not done.

        Raises:
            CursorReset: EXPIRED when retention took what comes next; another reason when the stream became another.
            SourceUnavailable: the broker does not answer.
        """
        page = Page(after)
        if after.sequence >= end.sequence:
            page.is_last = True
            return page
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + limits.work_s
        left = limits.examined
        chunks = self._chunks(wanted, after, end, limits)
        try:
            async for entries, through in chunks:
                if reset.done():
                    raise reset.result()
                if not self._fill(page, wanted, entries, limits):
                    return page
                page.through = through
                page.is_last = through.sequence >= end.sequence
                left -= len(entries)
                if page.is_last or left <= 0 or len(page.frames) >= limits.events or loop.time() >= ends_at:
                    return page
                await asyncio.sleep(0)  # What comes from the ring awaits nothing else.
        finally:
            await chunks.aclose()
        return page

    def _fill(self, page: Page, wanted: Filter, entries: list[Entry], limits: PageLimits) -> bool:
        """Adds what matches; False when the page is full before the last of the entries."""
        memberships = self._hub.memberships
        examined: Entry | None = None
        for entry in entries:
            if wanted.matches(entry, memberships):
                size = len(entry.frame)
                is_full = len(page.frames) >= limits.events or page.size + size > limits.bytes
                if page.frames and is_full:
                    break
                page.frames.append(entry.frame)
                page.size += size
            examined = entry
        if examined is not None:
            page.through = Cursor(page.through.epoch, examined.sequence, examined.timestamp_ns)
        return examined is entries[-1] if entries else True

    async def _chunks(
        self, wanted: Filter, after: Cursor, end: Cursor, limits: PageLimits
    ) -> AsyncGenerator[Examined]:
        subjects = subjects_of(wanted)
        # A kind may be nearly all there is: then its index costs more than it saves. The next chunk tells.
        is_sparse = bool(wanted.workspaces or wanted.entities)
        while after.sequence < end.sequence:
            found = self._from_ring(after, end)
            if found is None and subjects is not None and is_sparse:
                async with self._readers:
                    async for examined in self._by_subjects(subjects, after, end):
                        yield examined
                return
            if found is None:
                count = _CHUNK_MESSAGES if wanted != Filter() else min(_CHUNK_MESSAGES, limits.events + 16)
                async with self._readers:
                    found = await self._from_stream(after, end, count)
                kinds = [entry.subject.kind for entry in found[0] if entry.subject is not None]
                matching = sum(kind in wanted.kinds for kind in kinds)
                is_sparse = matching * _SPARSE < len(found[0])
            yield found
            after = found[1]

    def _from_ring(self, after: Cursor, end: Cursor) -> Examined | None:
        items = self._hub.history.read(after.sequence, end.sequence, _RING_BATCH)
        if items is None:
            return None
        if not items:
            return [], end
        last = items[-1][0]
        return [entry for entry, _ in items], Cursor(after.epoch, last.sequence, last.timestamp_ns)

    async def _from_stream(self, after: Cursor, end: Cursor, count: int) -> Examined:
        """The next chunk of the stream as it stands."""
        while True:
            entries = await self._reader.page(after.epoch, after.sequence, messages=count, size=_CHUNK_BYTES)
            await self._check(after, entries)
            inside = [entry for entry in entries if entry.sequence <= end.sequence]
            if len(inside) < len(entries):
                return inside, end
            if inside:
                last = inside[-1]
                return inside, Cursor(after.epoch, last.sequence, last.timestamp_ns)
            if await self._is_over(after, end, ">"):
                return [], end
            await asyncio.sleep(_PAUSE_S)  # a replica answered that has less than the leader

    async def _by_subjects(self, subjects: list[str], after: Cursor, end: Cursor) -> AsyncGenerator[Examined]:
        """The entries of several subjects in the stream's order, chunk by chunk."""
        runs = [_Run(subject, after) for subject in subjects]
        while True:
            for run in runs:
                while not run.entries and not run.is_over:
                    await self._read_on(run, after, end)
            heads = [run.entries[-1].sequence for run in runs if not run.is_over]
            # Beyond the shortest of them an entry of another subject may come in between.
            known = min(heads, default=end.sequence)
            found: dict[int, Entry] = {}
            for run in runs:
                while run.entries and run.entries[0].sequence <= known:
                    entry = run.entries.popleft()
                    found[entry.sequence] = entry
            entries = [found[sequence] for sequence in sorted(found)]
            if not heads:
                yield entries, end
                return
            yield entries, Cursor(after.epoch, known, found[known].timestamp_ns)

    async def _read_on(self, run: _Run, after: Cursor, end: Cursor) -> None:
        entries = await self._reader.page(
            run.at.epoch, run.at.sequence, size=_CHUNK_BYTES, subject=run.subject
        )
        await self._check(after, ())
        inside = [entry for entry in entries if entry.sequence <= end.sequence]
        run.entries.extend(inside)
        if inside:
            run.at = Cursor(run.at.epoch, inside[-1].sequence)
        if len(inside) < len(entries):
            run.is_over = True
        elif not entries:
            run.is_over = await self._is_over(run.at, end, run.subject)
            if not run.is_over:
                await asyncio.sleep(_PAUSE_S)

    async def _is_over(self, after: Cursor, end: Cursor, subject: str) -> bool:
        """Whether the leader too has nothing more up to the end."""
        following = await self._reader.next_sequence(after.sequence, subject)
        return following is None or following > end.sequence

    async def _check(self, after: Cursor, entries: list[Entry] | tuple[()]) -> None:
        """Whether what was read is of this epoch, and retention had taken nothing of it.

        Asked after it was read. A hole is no loss when single messages were removed.
        """
        missing = after.sequence + 1
        for entry in entries:
            if entry.sequence > missing:
                break
            missing += 1
        state = await self._reader.state()
        if state.epoch != after.epoch:
            raise CursorReset(
                "EPOCH_CHANGED", f"the list is of epoch {after.epoch}, the stream of {state.epoch}"
            )
        if self._hub.epoch != after.epoch:
            raise SourceUnavailable("a new epoch began just now")
        if state.first_sequence > missing:
            raise CursorReset("EXPIRED", f"the stream begins at {state.first_sequence}, {missing} was next")


@dataclass(slots=True)
class _Run:
    """What was read of one subject and not handed on; everything of it up to ``at`` was read."""

    subject: str
    at: Cursor
    entries: deque[Entry] = field(default_factory=deque)
    is_over: bool = False
