"""What must arrive, written down by the side that writes, and what did arrive held against it.

``Expected`` is the list of events that the replayed transactions must give, in order. Each
subscriber has an ``Account``: it finds an event's place in that list by (kind, entity id, verb,
version), never by what the server says of itself, so lost, duplicated and out of order are exact.
What is not in the list counts as duplicated: it had no reason to come.

An event costs a dictionary entry of two integers here and one byte an account: a million of them
take some hundred megabytes, not gigabytes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpectedEvent:
    """One event that must come. ``version`` is the row's after the change, before it for a delete."""

    kind: str
    entity_id: str
    verb: str
    version: int


class Expected:
    """The ordered list. It only grows; the index of an event is its place."""

    def __init__(self) -> None:
        # A digest of 63 bits instead of the event: two of a million are alike once in ten million runs.
        self._index: dict[int, int] = {}
        self._first_of_commit: list[int] = []

    def __len__(self) -> int:
        return len(self._index)

    def extend(self, events: Sequence[ExpectedEvent]) -> None:
        """Writes down the events of the next commit, which may be none.

        Raises:
            ValueError: an event stands in the list already.
        """
        self._first_of_commit.append(len(self._index))
        for event in events:
            key = _digest(event.kind, event.entity_id, event.verb, event.version)
            if key in self._index:
                raise ValueError(f"{event} is expected twice")
            self._index[key] = len(self._index)

    def find(self, kind: str, entity_id: str, verb: str, version: int) -> int | None:
        """The event's place, None when it is not expected."""
        return self._index.get(_digest(kind, entity_id, verb, version))

    def commits_before(self, index: int) -> int:
        """How many commits are over when the events before ``index`` have come."""
        if index >= len(self._index):
            return len(self._first_of_commit)
        return max(bisect_right(self._first_of_commit, index) - 1, 0)


class Account:
    """What one subscriber got.

    ``duplicated`` counts events that came again and ``unexpected`` those that are not in the list;
    ``out_of_order`` counts first arrivals after one that stands later in the list.
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._seen = bytearray()
        self.frontier = 0
        """One more than the highest place that came."""
        self.delivered = 0
        """Events of the list that came, each counted once."""
        self.duplicated = 0
        self.unexpected = 0
        self.out_of_order = 0

    def receive(self, kind: str, entity_id: str, verb: str, version: int) -> int | None:
        """Counts an arrival and gives its place in the list, None when it is not in it."""
        index = self._expected.find(kind, entity_id, verb, version)
        if index is None:
            self.unexpected += 1
            return None
        if index >= len(self._seen):
            self._seen.extend(bytes(max(index + 1 - len(self._seen), 1024)))
        if self._seen[index]:
            self.duplicated += 1
            return index
        self._seen[index] = 1
        self.delivered += 1
        if index < self.frontier:
            self.out_of_order += 1
        else:
            self.frontier = index + 1
        return index

    @property
    def lost(self) -> int:
        """Events of the list that have not come."""
        return len(self._expected) - self.delivered

    def is_complete(self) -> bool:
        """Whether everything that is expected so far has come."""
        return self.delivered == len(self._expected)


@dataclass(frozen=True, slots=True)
class Counts:
    """The accounts of all subscribers together; ``duplicated`` includes what was not expected."""

    delivered: int
    lost: int
    duplicated: int
    unexpected: int
    out_of_order: int


def total(accounts: Iterable[Account]) -> Counts:
    """The sum over the accounts. ``delivered`` counts every arrival, the second ones too."""
    held = list(accounts)
    extra = sum(account.duplicated + account.unexpected for account in held)
    return Counts(
        sum(account.delivered for account in held) + extra,
        sum(account.lost for account in held),
        extra,
        sum(account.unexpected for account in held),
        sum(account.out_of_order for account in held),
    )


def _digest(kind: str, entity_id: str, verb: str, version: int) -> int:
    key = f"{kind} {entity_id} {verb} {version}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
