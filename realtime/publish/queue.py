"""What waits to be stored as one producer, and which of it goes into the next batch. No I/O.

What is known already is settled on the way: repetitions, what was passed over, and calls that are over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from realtime.errors import AlreadyStored, ProducerFenced, SequencePassed
from realtime.publish.item import Flow, Item, Unit
from realtime.publish.results import Reached

MOST_MESSAGES: Final = 1000
"""The broker's bound of an atomic batch."""
MOST_EVENTS: Final = MOST_MESSAGES - 1
"""In a batch of a producer: the mark is one of its messages."""
_MOST_BYTES: Final = 4 * 1024 * 1024


class Queue:
    """Units in their order. An empty ``producer_id`` stands for nobody: then nothing is known."""

    def __init__(self, producer_id: str) -> None:
        self._producer_id = producer_id
        self._most = MOST_EVENTS if producer_id else MOST_MESSAGES
        self._units: deque[Unit] = deque()

    def __bool__(self) -> bool:
        return bool(self._units)

    def put(self, unit: Unit) -> None:
        self._units.append(unit)

    def put_back(self, units: Sequence[Unit]) -> None:
        """What ``next_batch`` took its items from stands first again."""
        for unit in reversed(units):
            unit.taken = 0
            if not self._units or self._units[0] is not unit:
                self._units.appendleft(unit)

    def clear(self) -> list[Unit]:
        """Takes all that waits."""
        units = list(self._units)
        self._units.clear()
        return units

    def next_batch(self, state: Reached, units: list[Unit]) -> list[Item]:
        """Takes units, or the first part of one, from the front; they are added to ``units``. A whole one goes by
        itself, and is the last of them."""
        batch: list[Item] = []
        size = 0
        seen: set[str] = set()
        most = self._most
        is_producer = bool(self._producer_id)
        while self._units and len(batch) < most and size < _MOST_BYTES:
            unit = self._units[0]
            if unit.is_whole and batch:
                break
            units.append(unit)
            if self._is_over(unit.flow, state):
                self._units.popleft()
                continue
            if unit.is_whole:
                self._units.popleft()
                return self.unknown(unit.items, state)
            items = unit.items
            at, end = unit.taken, len(items)
            while at < end and len(batch) < most and size < _MOST_BYTES:
                item = items[at]
                if not (item.is_settled or (is_producer and self._settle(item, state))):
                    subject = item.message.subject
                    if batch and (
                        (is_producer and item.sequence <= batch[-1].sequence)
                        or (item.expected >= 0 and subject in seen)
                    ):
                        break  # it repeats what this batch stores, or expects something of it
                    batch.append(item)
                    seen.add(subject)
                    size += item.size
                at += 1
            unit.taken = at
            if at < end:
                break
            self._units.popleft()
        return batch

    def unknown(self, items: Iterable[Item], state: Reached) -> list[Item]:
        """Those that are to be stored; what is known of the others settles them."""
        is_producer = bool(self._producer_id)
        return [
            item for item in items if not (item.is_settled or (is_producer and self._settle(item, state)))
        ]

    def _is_over(self, flow: Flow, state: Reached) -> bool:
        if self._producer_id and flow.session and flow.session != state.session and flow.failure is None:
            flow.fail(ProducerFenced(self._producer_id, flow.session))
        return flow.failure is not None

    def _settle(self, item: Item, state: Reached) -> bool:
        """Whether it is settled by what is known of the producer."""
        if item.sequence > state.reached:
            return False
        results = state.results
        place = results.find(item.sequence)
        oldest = results.oldest
        if place:
            item.store(place, is_repeated=True)
        elif oldest and item.sequence > oldest:
            item.fail(SequencePassed(item.sequence, state.reached))
        else:
            item.fail(AlreadyStored())
        return True
