"""Who listens to broadcasts in this process, found by what their filters name.

Those who ask for the same stand in one group, so that a broadcast is matched once for all of
them. A filter that became narrower is noticed when the next broadcast would be given or taken: nobody
has to say so, and nothing that may not be seen is handed out in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from realtime.broadcast.box import Box
from realtime.broadcast.cast import Cast
from realtime.filters import Filter
from realtime.index import Index
from realtime.mask import Mask
from realtime.memberships import Memberships

if TYPE_CHECKING:
    from realtime.broadcast.row import Row

_GroupKey = tuple[Filter, Mask | None]


class _Group:
    """Listeners with the same filter and the same mask."""

    __slots__ = ("filter", "is_selective", "mask", "members")

    def __init__(self, key: _GroupKey) -> None:
        self.filter, self.mask = key
        self.is_selective = self.filter.is_selective
        self.members: dict[Box, None] = {}


class Audience:
    """``memberships`` gives those of now: whose broadcasts reach which workspaces."""

    def __init__(self, memberships: Callable[[], Memberships]) -> None:
        self._memberships = memberships
        self._index: Index[_Group] = Index()
        self._groups: dict[_GroupKey, _Group] = {}
        self._listeners = 0
        self.sleepers: deque[Row] = deque()
        """Connections that have something to send, and whose turn it is not yet."""
        self.on_sleeper: Callable[[], None] = _nothing
        """Called when there is one; somebody calls ``wake`` then."""
        self.on_change: Callable[[], None] = _nothing
        """Called when the first comes, and when the last is gone."""

    def __len__(self) -> int:
        return self._listeners

    def join(self, box: Box) -> None:
        """From now on it is given what matches."""
        self._add(box)
        self._listeners += 1
        if self._listeners == 1:
            self.on_change()

    def leave(self, box: Box) -> None:
        """It is given nothing any more."""
        self._remove(box)
        self._listeners -= 1
        if not self._listeners:
            self.on_change()

    def give(self, cast: Cast) -> int:
        """Puts a broadcast into the boxes of all who want it; gives how many that were."""
        entry = cast.entry
        assert entry.subject is not None
        memberships = self._memberships()
        count = 0
        narrowed: list[Box] = []
        for group in self._index.find(entry.subject, memberships):
            if group.is_selective and not group.filter.admits(entry):
                continue
            item = cast.item(group.mask)
            for box in group.members:
                if box.filter is box.subscriber.filter:
                    box.offer(cast, item)
                else:
                    narrowed.append(box)
            count += len(group.members)
        for box in narrowed:
            self.agree(box)
            if box.filter.matches(entry, memberships):
                box.offer(cast, cast.item(box.subscriber.terms.mask))
        return count

    def agree(self, box: Box) -> None:
        """Takes note of a filter that became narrower: what waits and does not match it is forgotten."""
        wanted = box.subscriber.filter
        if box.filter is wanted:
            return
        self._remove(box)
        box.filter = wanted
        self._add(box)
        memberships = self._memberships()
        box.keep(lambda cast: wanted.matches(cast.entry, memberships))

    def sleep(self, row: Row) -> None:
        """Something waits on a connection; its turn comes with one of the next ``wake``s."""
        self.sleepers.append(row)
        self.on_sleeper()

    def wake(self, count: int) -> None:
        """Gives so many connections their turn."""
        sleepers = self.sleepers
        for _ in range(min(count, len(sleepers))):
            sleepers.popleft().wake()

    def _add(self, box: Box) -> None:
        key = box.filter, box.subscriber.terms.mask
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
            self._index.add(group.filter, group)
        group.members[box] = None

    def _remove(self, box: Box) -> None:
        key = box.filter, box.subscriber.terms.mask
        group = self._groups[key]
        del group.members[box]
        if not group.members:
            del self._groups[key]
            self._index.remove(group.filter, group)


def _nothing() -> None:
    """Nobody asked to be told."""
