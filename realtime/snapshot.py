"""A subscription's present state, joined to the stream without a gap: pages, corrections, the end.

From the point P0 where the subscription was opened, the states are read page by page. A place of
the source's log past all that the pages can have seen is marked in the stream; once the
hub has passed it, the row events after P0 correct what was read too early, and the last word on each
entity is its state at that point, P1. Users whom the filter admits from then on, as they joined one of its
workspaces meanwhile, are read as well, and the log's next place is waited for. See docs/decisions/017.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime.catchup import CatchUp
from realtime.entry import Entry
from realtime.errors import ArgumentInvalid, Unavailable
from realtime.filters import USER_KIND, Filter
from realtime.hub import Hub
from realtime.memberships import KIND as MEMBERSHIP
from realtime.pages import Pages, state_item
from realtime.states import PAGE_ITEMS, StatePage, States

if TYPE_CHECKING:
    from realtime.subscriber import Subscriber

T = TypeVar("T")

_PATIENCE_S = 5.0
"""For so long a source of states that does not answer is asked again."""
_PAUSE_S = 0.25
_SILENCE_S = 15.0
"""For so long the stream may stand still before the log's place."""
_LAG_S = 120.0
"""For so long the stream may be behind it."""
_ROUNDS = 20
"""So often users who joined meanwhile are read. Each time takes as long as a mark."""


class Snapshot:
    """One snapshot of one subscription, from the point where this was opened."""

    def __init__(self, subscriber: Subscriber, hub: Hub, catch_up: CatchUp, states: States) -> None:
        assert subscriber.pages is not None
        self._subscriber = subscriber
        self._pages: Pages = subscriber.pages
        self._hub = hub
        self._catch_up = catch_up
        self._states = states
        # What happened to an entity does not matter here, whatever else the filter asks for.
        asked = subscriber.filter
        self._wanted = Filter(asked.workspaces, asked.kinds, asked.entities)
        self._mask = subscriber.terms.mask
        self._point = subscriber.sent
        self._matched = 0
        self._joined: set[str] = set()

    async def send(self) -> None:
        """Returns when the end was sent, or the subscription was closed.

        Raises:
            ArgumentInvalid: the filter names a kind that has no states here.
            Unavailable: the states cannot be read, or nothing is heard of the source.
            CursorReset: retention took what the states were to be corrected with.
        """
        wanted, states = self._wanted, self._states
        unknown = sorted(wanted.kinds.difference(states.kinds))
        if unknown:
            raise ArgumentInvalid(
                "filter.kinds",
                f"there is no snapshot of {unknown[0]!r}",
                f"use some of: {', '.join(states.kinds)}",
            )
        if not self._hub.source.wal_lsn:
            # Before an epoch's changes are streamed, what is read and gone again is told by nobody.
            await self._ask(states.position)
            await self._reach(1)
        await self._ask(states.settle)
        for kind in states.kinds:
            if wanted.kinds and kind not in wanted.kinds:
                continue
            after: str | None = ""
            while after is not None and not self._subscriber.is_closed:
                page = await self._ask(lambda kind=kind, after=after: states.page(kind, wanted, after))  # type: ignore[misc]
                await self._put(page, is_correction=False)
                after = page.after
        for _ in range(_ROUNDS):
            await self._reach(await self._ask(states.position))
            has_read = await self._correct(self._hub.position.sequence)
            if not has_read or self._subscriber.is_closed:
                break
        else:
            raise Unavailable(
                "users join the workspaces faster than they can be read", "try again, or narrow the filter"
            )
        self._pages.end(self._point, self._matched)
        self._subscriber.notify()
        await self._pages.ended()

    async def _correct(self, through: int) -> bool:
        """Sends the row events up to a sequence; gives whether users were read, at a later moment than that."""
        has_read = False
        memberships = self._hub.memberships
        while self._point.sequence < through and not self._subscriber.is_closed:
            items = await self._catch_up.read(self._point)
            if not items:
                # What is left up to there was removed singly.
                self._point = self._point.moved(through, 0)
                break
            frames: list[bytes] = []
            for entry, _ in items:
                if entry.sequence > through:
                    self._point = self._point.moved(through, 0)
                    break
                self._point = self._point.after(entry)
                if entry.subject is None or entry.subject.suffix != "row":
                    continue
                if self._wanted.matches(entry, memberships):
                    frames.append(entry.frame if self._mask is None else self._mask.frame(entry))
                self._note_join(entry)
            self._matched += len(frames)
            await self._put_frames(frames, is_correction=True)
            if len(self._joined) >= PAGE_ITEMS:
                has_read |= await self._read_joined()
            await asyncio.sleep(0)
        return await self._read_joined() or has_read

    def _note_join(self, entry: Entry) -> None:
        """Whom a membership brings into one of the wanted workspaces: the filter admitted no event of theirs before."""
        wanted, subject = self._wanted, entry.subject
        if not wanted.workspaces or (wanted.kinds and USER_KIND not in wanted.kinds):
            return
        if subject is None or subject.kind != MEMBERSHIP or entry.verb not in fmt.STATES:
            return
        if subject.workspace not in wanted.workspaces:
            return
        try:
            user = Event.FromString(entry.payload).membership.user_id
        except DecodeError:
            return
        if user and (not wanted.entities or user in wanted.entities):
            self._joined.add(user)

    async def _read_joined(self) -> bool:
        joined, self._joined = sorted(self._joined), set()
        for at in range(0, len(joined), PAGE_ITEMS):
            ids = joined[at : at + PAGE_ITEMS]
            users = await self._ask(lambda ids=ids: self._states.users(ids))  # type: ignore[misc]
            await self._put(users, is_correction=True)
        return bool(joined)

    async def _put(self, page: StatePage, is_correction: bool) -> None:
        mask = self._mask
        encoded = page.encoded if mask is None else [mask.trimmed(event) for event in page.events]
        await self._put_frames([state_item(event) for event in encoded], is_correction)

    async def _put_frames(self, frames: list[bytes], is_correction: bool) -> None:
        if frames:
            await self._pages.put(frames, is_correction, self._subscriber.notify)

    async def _reach(self, wal_lsn: int) -> None:
        """Waits until everything before a place of the log is in the hub.

        Raises:
            Unavailable: the stream stands still before it, or is far behind.
        """
        hub = self._hub
        until = asyncio.get_running_loop().time() + _LAG_S
        while hub.source.wal_lsn < wal_lsn:
            before = hub.position.sequence
            try:
                async with asyncio.timeout_at(until), asyncio.timeout(_SILENCE_S):
                    await hub.reached(before + 1)
            except TimeoutError:
                raise Unavailable(
                    "the bridge does not say that it read what the snapshot holds",
                    "try again; see whether it runs: zephyr bridge status",
                ) from None

    async def _ask(self, read: Callable[[], Awaitable[T]]) -> T:
        """What the states say, in spite of a short outage."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S
        while True:
            try:
                return await read()
            except Unavailable:
                if loop.time() + _PAUSE_S > until:
                    raise
            await asyncio.sleep(_PAUSE_S)
