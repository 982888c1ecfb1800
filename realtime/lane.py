"""The live run of one filter, shared by all subscriptions that want the same.

The hub matches an event against lanes, not against subscriptions, and a frame that several
of them are due is encoded once: they differ in their names alone. A member is a place in
the run. What the slowest has not taken is kept up to the mailbox's bounds; then it leaves the
live edge, and the run is cut behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from realtime.entry import Entry
from realtime.filters import Filter
from realtime.frames import EventsFrame, Framed, cut_frame
from realtime.limits import MailboxLimits
from realtime.mask import Mask
from realtime.point import Point

if TYPE_CHECKING:
    from realtime.subscriber import Subscriber

LaneKey = tuple[Filter, Mask | None, MailboxLimits]
_CACHED_FRAMES = 8
"""Frames that are kept for members who come later to the same place: of nearly all there is one."""


class Lane:
    """What one filter matched since somebody listens. ``base`` is the place of its first item; places only grow."""

    def __init__(self, key: LaneKey, edge: Callable[[], Point]) -> None:
        self.key = key
        self.filter, self._mask, self._limits = key
        self.is_selective = self.filter.is_selective
        self.edge = edge
        self.members: dict[Subscriber, None] = {}
        self.base = 0
        self._items: list[Framed] = []
        self._begins: list[int] = []
        """How many bytes came before each item, since the lane's beginning: what waits for a member is asked of
        each of them for whatever comes."""
        self._begin = self._end = 0
        self._idle: dict[Subscriber, None] = {}
        self._frames: dict[tuple[int, ...], EventsFrame] = {}

    @property
    def end(self) -> int:
        """The place after the last item."""
        return self.base + len(self._items)

    @property
    def bytes(self) -> int:
        """How many bytes of frames it holds."""
        return self._end - self._begin

    def append(self, entry: Entry, point: Point) -> None:
        """Adds what matched. ``make_room`` comes before."""
        frame = entry.frame if self._mask is None else self._mask.frame(entry)
        self._items.append((entry, point, frame))
        self._begins.append(self._end)
        self._end += len(frame)

    def has_room(self, size: int) -> bool:
        """Whether the next item is within the bounds; an empty lane takes one of any size."""
        limits = self._limits
        return not self._items or (
            len(self._items) < limits.max_events and self.bytes + size <= limits.max_bytes
        )

    def make_room(self, size: int) -> list[Subscriber]:
        """Cuts off what all have taken when the bounds are met; gives those who must leave for the next item."""
        left: list[Subscriber] = []
        while self._items:
            floor = min((member.at for member in self.members if member not in left), default=self.end)
            self._cut(floor)
            if self.has_room(size):
                break
            left += [member for member in self.members if member.at == floor and member not in left]
        return left

    def overtaken(self, sequence: int) -> list[Subscriber]:
        """Members who have not taken an item at or before a sequence. They must leave: the ring has dropped it, and
        what the lanes keep alive beyond the ring would have no bound. Call ``trim`` when they did."""
        if not self._items or self._items[0][0].sequence > sequence:
            return []
        found = []
        for member in self.members:
            item = self.item(member.at)
            if item is not None and item[0].sequence <= sequence:
                found.append(member)
        return found

    def trim(self) -> None:
        """Lets go of what all members have taken, and of the frames that were kept for who comes later."""
        self._frames.clear()
        self._cut(min([member.at for member in self.members], default=self.end))

    def _cut(self, place: int) -> None:
        count = place - self.base
        if count > 0:
            del self._items[:count], self._begins[:count]
            self._begin = self._begins[0] if self._begins else self._end
            self.base = place

    def join(self, member: Subscriber) -> int:
        """Gives the place that a new member begins at: what comes next."""
        self.members[member] = None
        self._idle[member] = None
        return self.end

    def leave(self, member: Subscriber) -> None:
        """Takes a member out."""
        self.members.pop(member, None)
        self._idle.pop(member, None)

    def items_from(self, place: int) -> list[Framed]:
        """What a member at this place has not taken."""
        return self._items[place - self.base :]

    def item(self, place: int) -> Framed | None:
        """The item at a place; None at the end."""
        at = place - self.base
        return self._items[at] if at < len(self._items) else None

    def bytes_from(self, place: int) -> int:
        """How many bytes of frames a member at this place has not taken."""
        at = place - self.base
        return self._end - self._begins[at] if at < len(self._begins) else 0

    def frame(self, place: int, epoch: str, sent: Point, lsn: int) -> EventsFrame:
        """The next frame of a member at this place that was sent everything up to ``sent``, and last an event of
        the transaction ``lsn``. There must be an item."""
        edge = self.edge()
        key = (place, self.end, sent.sequence, sent.stored, edge.sequence, lsn)
        found = self._frames.get(key)
        if found is None:
            found = cut_frame(epoch, self._items, place - self.base, sent, edge, None, lsn)
            if len(self.members) > 1:
                if len(self._frames) >= _CACHED_FRAMES:
                    self._frames.clear()
                self._frames[key] = found
        return found

    def rest(self, member: Subscriber) -> None:
        """A member has nothing to send: it is told when something comes. With the last of them the lane is empty."""
        self._idle[member] = None
        if self._items and len(self._idle) == len(self.members):
            end = self.end
            # Who lingers is idle too, and has not taken all.
            if all(each.at == end for each in self.members):
                self._cut(end)
                self._frames.clear()

    def wake(self) -> None:
        """Tells the members that wait that there is something."""
        for member in list(self._idle):
            if member.notify():
                self._idle.pop(member, None)
