"""A writer that writes down what it committed, and what the stream must then hold.

One writer commits transaction after transaction, so the list of its row changes is the list
of events that the stream must have: each once, in that order, and nothing else. A commit
whose answer was lost is asked for afterwards: each transaction inserts a user of its own.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import OWNER, Reader, Stored

W1, W2 = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PAUSE_S = 0.01
ROWS = "zephyr.0.*.*.*.row"
SET_OF = ("created", "updated", "entered", "read")


class Change(NamedTuple):
    """One event as it must be; ``version`` is that of the row in it."""

    kind: str
    entity: str
    verb: str
    version: int


class Writer:
    """Commits at random from a seed; ``committed`` has every change, in order."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.dsn = dsn
        self.committed: list[Change] = []
        self.transactions = 0
        self.stops = False
        self._random = random.Random(seed)
        self._notes: dict[str, tuple[int, str]] = {}
        self._attempts = 0
        self._connection: AsyncConnection | None = None

    async def prepare(self) -> None:
        """The workspaces; call it when the bridge streams."""
        async with await AsyncConnection.connect(self.dsn) as connection:
            for workspace in (W1, W2):
                await connection.execute(
                    "INSERT INTO workspaces (id, slug, name) VALUES (%s, %s, 'w')", (workspace, workspace)
                )
                self.committed.append(Change("workspace", workspace, "created", 1))

    async def run(self) -> None:
        """Commits until it is to stop, whatever happens to the server."""
        try:
            while not self.stops:
                await self.commit()
                # A load, and no wait for anything: the checks read each message by itself.
                await asyncio.sleep(PAUSE_S)
        finally:
            await self.close()

    async def commit(self) -> None:
        """One transaction that is surely committed, tried again until it is."""
        while True:
            self._attempts += 1
            marker = f"tx-{self._attempts}"
            changes: list[Change] = []
            notes = dict(self._notes)
            try:
                await self._try(marker, changes, notes)
            except psycopg.OperationalError:
                if not await self._is_committed(marker):
                    continue
            self.committed += changes
            self._notes = notes
            self.transactions += 1
            return

    async def _try(self, marker: str, changes: list[Change], notes: dict[str, tuple[int, str]]) -> None:
        if self._connection is None:
            self._connection = await AsyncConnection.connect(self.dsn, connect_timeout=5)
        async with self._connection.transaction():
            user = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            await self._connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user, marker))
            changes.append(Change("user", user, "created", 1))
            for _ in range(self._random.randrange(5)):
                changes += await self._change(self._connection, notes)

    async def _change(self, connection: AsyncConnection, notes: dict[str, tuple[int, str]]) -> list[Change]:
        what = self._random.choice(("insert", "insert", "update", "update", "move", "delete"))
        body = "x" * self._random.choice((0, 10, 3000))
        if what == "insert" or not notes:
            note = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            workspace = self._random.choice((W1, W2))
            await connection.execute(
                "INSERT INTO notes (id, workspace_id, title, body) VALUES (%s, %s, %s, %s)",
                (note, workspace, f"é{self._attempts}", body),
            )
            notes[note] = (1, workspace)
            return [Change("note", note, "created", 1)]
        note = self._random.choice(sorted(notes))
        version, workspace = notes[note]
        if what == "delete":
            await connection.execute("DELETE FROM notes WHERE id = %s", (note,))
            del notes[note]
            return [Change("note", note, "deleted", version)]
        if what == "update":
            await connection.execute("UPDATE notes SET body = %s WHERE id = %s", (body, note))
            notes[note] = (version + 1, workspace)
            return [Change("note", note, "updated", version + 1)]
        away = W2 if workspace == W1 else W1
        await connection.execute("UPDATE notes SET workspace_id = %s WHERE id = %s", (away, note))
        notes[note] = (version + 1, away)
        return [Change("note", note, "left", version), Change("note", note, "entered", version + 1)]

    async def _is_committed(self, marker: str) -> bool:
        await self.close()

        async def found() -> tuple[bool]:
            try:
                async with await AsyncConnection.connect(self.dsn, connect_timeout=5) as connection:
                    cursor = await connection.execute("SELECT 1 FROM users WHERE email = %s", (marker,))
                    return (await cursor.fetchone() is not None,)
            except psycopg.OperationalError as exc:
                raise AssertionError(str(exc)) from exc

        return (await eventually(found, timeout=30, what="Postgres answers the writer"))[0]

    async def close(self) -> None:
        """Closes its connection; the next commit opens another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


@asynccontextmanager
async def writing(writer: Writer) -> AsyncIterator[None]:
    """The writer commits as long as the context is open; its own errors come out of it."""
    writer.stops = False
    task = asyncio.ensure_future(writer.run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        # Not cancelled: a commit under way would be made and not written down.
        writer.stops = True
        await task


async def more(writer: Writer, transactions: int, timeout: float = 30) -> None:
    """Waits until the writer has committed so many more."""
    target = writer.transactions + transactions
    await eventually(lambda: writer.transactions >= target, timeout=timeout, what="the writer goes on")


def change_of(message: Stored) -> Change:
    """What a message says, read from its subject, its headers and its payload."""
    _, _, _, kind, entity, _ = message.subject.split(".")
    event = message.event
    data = getattr(event, kind)
    assert data.id == entity == event.subject
    return Change(kind, entity, message.headers["Zephyr-Verb"], data.version)


def check_order(events: list[Stored]) -> None:
    """Ids are unique, places grow, every transaction is whole and says so once."""
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    open_lsn, open_index = 0, -1
    for message in events:
        lsn, index = message.place
        assert (lsn, index) == (open_lsn, open_index + 1) or (index == 0 and open_index == -1), (
            f"{message.sequence}: {lsn:X}/{index} stands after {open_lsn:X}/{open_index}"
        )
        assert lsn >= open_lsn
        count = message.headers["Zephyr-Commit"].split("/")[2:]
        assert count in ([], [str(index + 1)])
        assert (message.event.commit.lsn, message.event.commit.index) == (lsn, index)
        open_lsn, open_index = lsn, -1 if count else index
    assert open_index == -1, "the last transaction is not whole"


async def check(reader: Reader, writer: Writer) -> int:
    """Holds the whole stream against what was committed and what the tables hold now.

    Gives the number of events. What others published is passed over.
    """
    await reader.caught_up(writer.dsn, timeout=30)
    messages = await reader.all(subject=ROWS) + await reader.all(subject=OWNER)
    events = [message for message in messages if not message.is_mark]
    check_order(events)
    found = [change_of(message) for message in events]
    assert found == writer.committed, _first_difference(found, writer.committed)
    terms = [message.owner.term for message in messages if message.subject == OWNER]
    assert terms == sorted(terms)
    await check_fold(events, writer.dsn)
    return len(events)


async def check_fold(events: list[Stored], dsn: str) -> None:
    """The last word of the stream on each row is the row."""
    states: dict[tuple[str, str], dict[str, object]] = {}
    for message in events:
        change = change_of(message)
        key = (change.kind, change.entity)
        if change.verb in SET_OF:
            data = getattr(message.event, change.kind)
            states[key] = {name: _plain(getattr(data, name)) for name in data.DESCRIPTOR.fields_by_name}
        elif change.verb == "deleted":
            del states[key]
    rows: dict[tuple[str, str], dict[str, object]] = {}
    async with await AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        for kind in ("workspace", "user", "membership", "note"):
            cursor = await connection.execute(
                "SELECT to_jsonb(t) - 'created_at' - 'updated_at' AS row,"
                " (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,"
                f" (extract(epoch FROM updated_at) * 1000000)::bigint AS updated_at FROM {kind}s AS t".encode()
            )
            for found in await cursor.fetchall():
                row = {name: "" if value is None else value for name, value in found.pop("row").items()}
                rows[kind, str(row["id"])] = row | found
    assert states == rows


def _plain(value: object) -> object:
    return value if isinstance(value, str | int) else dict(value)  # type: ignore[call-overload]


def _first_difference(found: list[Change], wanted: list[Change]) -> str:
    for place, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"at {place}: found {one}, wanted {other}"
    return f"{len(found)} events, wanted {len(wanted)}"
