"""What waits for one subscription's client, and the frames that it is taken out in.

Events stand in a backlog of its own (read back for it), in a place of a lane that others share (at the live
edge), or in pages (of a snapshot); control frames take their turn among them and need no credit. Nothing
here decides what comes in: ``subscriber.py`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from realtime.backlog import Backlog
from realtime.budget import Budget
from realtime.controls import LAST, Controls
from realtime.credit import Credit
from realtime.entry import Entry
from realtime.frames import FRAME_BYTES, FRAME_MAX_BYTES, EventsFrame, Framed, cut_frame, head, name_field
from realtime.lane import Lane
from realtime.limits import MailboxLimits
from realtime.pages import Pages
from realtime.point import ORIGIN, Point
from realtime.terms import Terms
from realtime.turn import Turn


class Mailbox:
    """``sent`` is where the last frame ended, ``examined`` the point up to which everything that matches is in
    here or was sent. Both are of one numbering."""

    def __init__(self, name: str, terms: Terms, limits: MailboxLimits, budget: Budget) -> None:
        self.name = name
        self.terms = terms
        self.limits = limits
        self.credit = Credit(terms.messages, terms.bytes)
        self.epoch = ""
        self.sent = ORIGIN
        self.at = 0
        """The place in the lane that is sent next."""
        self.is_closed = False
        self.is_begun = False
        """Whether what is sent of it joins: from its beginning on, and not between a reset and the next one."""
        self.pages = None if terms.page_size is None else Pages(terms.page_size, budget)
        """Of its snapshots, where it wants one; they come before events."""
        self.turn = Turn()
        self._prefix = name_field(name)
        self._examined = ORIGIN
        self._lane: Lane | None = None
        self._own = Backlog(limits, budget)
        self._controls = Controls()
        self._lsn = 0  # the transaction of the last event that was taken out
        self._told: asyncio.Event | None = None

    @property
    def examined(self) -> Point:
        return self._lane.edge() if self._lane is not None else self._examined

    async def told(self) -> None:
        """Waits until no control frame waits, or it is closed."""
        while len(self._controls) and not self.is_closed:
            self._told = asyncio.Event()
            await self._told.wait()

    def _note_told(self) -> None:
        if self._told is not None:
            self._told.set()
            self._told = None

    @property
    def has_frames(self) -> bool:
        """Whether a frame may be taken now."""
        following = self._next()
        if following is not None and self.credit.is_open:
            return True
        if self.pages is not None and self.pages.is_due(self.credit):
            return True
        return self._control_is_due(following)

    @property
    def is_paused(self) -> bool:
        """Whether events or items of a snapshot wait for credit."""
        if self.credit.is_open:
            return False
        return self._next() is not None or (self.pages is not None and self.pages.waits)

    @property
    def takes_broadcasts(self) -> bool:
        """Whether a frame that is none of the stream may be sent next: not before ``ready``."""
        return self.is_begun and self._controls.first_place > self.sent.sequence

    @property
    def queued(self) -> int:
        """How many events and control frames wait in the mailbox itself."""
        return len(self._own.items) + len(self._controls)

    @property
    def is_behind(self) -> bool:
        """Whether a progress frame would tell the client something new."""
        return self.sent.sequence < self.examined.sequence

    def is_full_frame(self) -> bool:
        """Whether so much waits that nothing is won by waiting for more."""
        if len(self._controls) or self._own.bytes >= FRAME_BYTES:
            return True
        if self.pages is not None and self.pages.is_under_way:
            return True
        return self._lane is not None and self._lane.bytes_from(self.at) >= FRAME_BYTES

    def take_entries(self, limit: int) -> tuple[list[Entry], Point]:
        """Up to ``limit`` events for a reader in this process, and the point that they lead to. Control frames
        are left out."""
        entries: list[Entry] = []
        through = self.sent
        self._controls.keep_end()
        self._own.admit()
        while len(entries) < limit and (following := self._next()) is not None:
            entry, through, _ = following
            entries.append(entry)
            if self._own.items:
                self._own.drop(1)
            else:
                self.at += 1
        if self._next() is None:
            through = max(through, self.examined)
            self._controls.clear()
            self._rest()
        self.sent = through
        return entries, through

    def take_frame(self) -> bytes:
        """The next frame, encoded. Only when ``has_frames``."""
        following = self._next()
        if self._control_is_due(following):
            return self._take_control(following)
        if self.pages is not None and self.pages.is_due(self.credit):
            return self._take_page(self.pages)
        return self._take_events()

    def _take_page(self, pages: Pages) -> bytes:
        if pages.waits:
            # Without a cursor: who goes on from the midst of a snapshot would miss the rest of it.
            page = pages.take_page(self.credit)
            return self._prefix + head("", self.sent, self.sent, 0).SerializeToString() + page
        end, through, matched = pages.take_end()
        frame = head(self.epoch, self.sent, through, matched)
        frame.subscription_id = self.name
        frame.snapshot_end.CopyFrom(end)
        self.sent = self._examined = through
        return frame.SerializeToString()

    def _take_control(self, following: Framed | None) -> bytes:
        through = self.sent if following is not None else max(self.sent, self.examined)
        is_whole = self.pages is None or not self.pages.is_under_way
        frame = head(self.epoch if is_whole else "", self.sent, through, 0)
        frame.subscription_id = self.name
        if following is not None and self._controls.first_place == LAST:
            # It is over, and there was no credit for what waits: none of it follows, should some come now.
            self._own.drop(len(self._own.items))
            self._examined = self.sent
        self._controls.take_into(frame)
        if len(self._controls) == self.limits.max_controls // 2:
            self._own.admit()
        self.sent = through
        self._rest()
        if not len(self._controls):
            self._note_told()
        return frame.SerializeToString()

    def _take_events(self) -> bytes:
        lane = self._lane
        credit = self.credit
        if self._own.items:
            items: Sequence[Framed] = self._own.items
            following = lane.item(self.at) if lane is not None else None
            frame = self._cut(items, following)
            self._own.drop(frame.events)
        else:
            assert lane is not None, "a frame is taken only when there is one"
            if len(self._controls):
                frame = self._cut(lane.items_from(self.at), None)
            else:
                frame = lane.frame(self.at, self.epoch, self.sent, self._lsn)
                if not credit.covers(frame.events, frame.size, frame.last_size):
                    frame = self._cut(lane.items_from(self.at), None)
            self.at += frame.events
        credit.spend(frame.events, frame.size)
        self.sent, self._lsn = frame.through, frame.lsn
        self._rest()
        return self._prefix + frame.rest

    def _cut(self, items: Sequence[Framed], following: Framed | None) -> EventsFrame:
        """A frame of one's own: up to the next control frame's turn, and as far as the credit goes."""
        if not len(self._controls):
            # Nearly always: what fits into a frame is looked at, and not all that waits.
            frame = cut_frame(self.epoch, items, 0, self.sent, self.examined, following, self._lsn)
            if self.credit.covers(frame.events, frame.size, frame.last_size):
                return frame
        place = self._controls.first_place
        count = size = 0
        for entry, _, data in items:
            if count and (entry.sequence > place or size >= FRAME_MAX_BYTES):
                break
            if not self.credit.covers(count + 1, size + len(data), len(data)):
                break
            count += 1
            size += len(data)
        return cut_frame(self.epoch, items, 0, self.sent, self.examined, following, self._lsn, max(1, count))

    def _next(self) -> Framed | None:
        if self._own.items:
            return self._own.items[0]
        return self._lane.item(self.at) if self._lane is not None else None

    def _control_is_due(self, following: Framed | None) -> bool:
        if not len(self._controls):
            return False
        place = self._controls.first_place
        if following is None:
            if place == LAST:
                return self.pages is None or not self.pages.is_due(self.credit)
            # Once it is closed nothing more is examined, and nobody has to wait for that.
            return self.is_closed or self.examined.sequence >= place
        # What ends the subscription does not wait for credit that may never come.
        is_over = self._controls.has_end and not self.credit.is_open
        return following[0].sequence > place or is_over

    def release(self) -> None:
        """Gives back what the connection's budget was charged for; the subscription is over."""
        self._own.release()
        if self.pages is not None:
            self.pages.release()

    def _rest(self) -> None:
        """Called whenever something was taken: the lane is told, once there is nothing more."""
