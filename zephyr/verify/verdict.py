"""The stream held against what was committed: nothing lost, repeated, out of order or altered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from zephyr.verify.stored import Stored, read
from zephyr.verify.truth import TABLES, Expected, Truth

_REMARKS = 20


@dataclass(slots=True)
class Verdict:
    """The counts. ``unexpected``: stands in the stream and was not committed so."""

    commits: int = 0
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unexpected: int = 0
    state_equal: bool = False
    remarks: list[str] = field(default_factory=list)
    """The first differences, in words."""

    @property
    def holds(self) -> bool:
        wrong = self.lost + self.duplicated + self.out_of_order + self.unexpected
        return wrong == 0 and self.state_equal

    def remark(self, text: str) -> None:
        if len(self.remarks) < _REMARKS:
            self.remarks.append(text)


async def judge(truth: Truth, client: Client, connection: AsyncConnection) -> Verdict:
    """Reads the whole stream once, and the tables."""
    count = Count(truth.expected)
    verdict = count.verdict
    verdict.commits = truth.commits
    states: dict[tuple[str, str], Stored] = {}
    async for stored in read(client):
        count.take(stored)
        _fold(states, stored)
    count.end()
    verdict.state_equal = await _is_equal(states, connection, verdict)
    return verdict


class Count:
    """Compares event by event; ``end`` counts what never came."""

    def __init__(self, expected: list[Expected]) -> None:
        self.verdict = Verdict()
        self._expected = expected
        self._at = {one.place: number for number, one in enumerate(expected)}
        self._seen = bytearray(len(expected))
        self._greatest = (-1, -1)

    def take(self, stored: Stored) -> None:
        """The next event of the stream."""
        verdict, place = self.verdict, (stored.lsn, stored.index)
        name = f"{stored.lsn:X}/{stored.index} {stored.verb} {stored.subject}"
        verdict.events += 1
        number = self._at.get(place)
        if number is not None and self._seen[number]:
            verdict.duplicated += 1
            verdict.remark(f"twice: {name}")
            return
        if place < self._greatest:
            verdict.out_of_order += 1
            verdict.remark(f"late: {name}")
        self._greatest = max(self._greatest, place)
        if number is None:
            verdict.unexpected += 1
            verdict.remark(f"was not committed: {name}")
            return
        self._seen[number] = 1
        wanted = self._expected[number]
        said = stored.version_and_digest()
        found = Expected(*place, stored.count, stored.subject, stored.verb, *said, stored.actor)
        if found != wanted:
            verdict.unexpected += 1
            verdict.remark(f"differs: {found} instead of {wanted}")

    def end(self) -> None:
        """The stream is read to its end."""
        for one, seen in zip(self._expected, self._seen, strict=True):
            if not seen:
                self.verdict.lost += 1
                self.verdict.remark(f"lost: {one.lsn:X}/{one.index} {one.verb} {one.subject}")


def _fold(states: dict[tuple[str, str], Stored], stored: Stored) -> None:
    """Replays one event into the state, as docs/stream-format.md says: domain events say nothing of it."""
    if not stored.subject.endswith(".row"):
        return
    if stored.verb in ("created", "updated", "entered"):
        states[stored.kind, stored.entity] = stored
    elif stored.verb in ("deleted", "rejected"):
        states.pop((stored.kind, stored.entity), None)
    elif stored.verb == "truncated":
        for key in [key for key in states if key[0] == stored.kind]:
            del states[key]


async def _is_equal(
    states: dict[tuple[str, str], Stored], connection: AsyncConnection, verdict: Verdict
) -> bool:
    left = dict(states)
    equal = True
    for table, kind in TABLES.items():
        query = (
            "SELECT to_jsonb(t) - 'created_at' - 'updated_at' - 'metadata' AS row,"
            " (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,"
            f" (extract(epoch FROM updated_at) * 1000000)::bigint AS updated_at FROM {table} AS t"
            " WHERE jsonb_typeof(metadata) = 'object'"
        )
        async with connection.cursor(row_factory=dict_row) as cursor:
            async for found in cursor.stream(query.encode()):
                row: dict[str, Any] = {**found.pop("row"), **found}
                stored = left.pop((kind, row["id"]), None)
                if stored is None or not _same(row, getattr(stored.event(), kind)):
                    equal = False
                    verdict.remark(f"{kind} {row['id']} is not in the stream as it is in the table")
    for kind, entity in left:
        equal = False
        verdict.remark(f"{kind} {entity} stands in the stream and not in the table")
    return equal


def _same(row: dict[str, Any], data: Any) -> bool:
    return all(getattr(data, name) == ("" if value is None else value) for name, value in row.items())
