"""What was read back, handed to the mailbox that it was read for."""

from __future__ import annotations

from collections.abc import Sequence

from realtime.entry import Entry
from realtime.history import Item
from realtime.memberships import Memberships
from realtime.subscriber import Subscriber


def hand_over_items(subscriber: Subscriber, items: Sequence[Item], memberships: Memberships) -> bool:
    """Offers what matches, tells where messages were removed, and says what was examined. False when there was no room for all: the rest is to be
    read again after ``examined``."""
    wanted = subscriber.filter
    for item in items:
        after, sequence = subscriber.examined.sequence, item[0].sequence
        if sequence > after + 1 and not subscriber.gap(after, sequence - 1):
            return False
        if wanted.matches(item[0], memberships) and not subscriber.offer(item):
            return False
        subscriber.examine(item[1])
    return True


def hand_over_entries(
    subscriber: Subscriber, entries: Sequence[Entry], through: int, memberships: Memberships
) -> bool:
    """The same of entries that follow ``examined``, as far as ``through``."""
    wanted = subscriber.filter
    point = subscriber.examined
    for entry in entries:
        if entry.sequence > through:
            break
        if entry.sequence > point.sequence + 1 and not subscriber.gap(point.sequence, entry.sequence - 1):
            subscriber.examine(point)
            return False
        following = point.after(entry)
        if wanted.matches(entry, memberships) and not subscriber.offer((entry, following)):
            subscriber.examine(point)
            return False
        point = following
    subscriber.examine(point)
    return True
