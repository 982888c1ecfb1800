"""The bridge is killed at every phase of its first copy, one after the other, while a writer commits.

Each phase is held open by what the phase waits for, and the kill comes when that can be observed: a gate before
NATS stops before a certain message, a transaction holds up the slot, a backend of Postgres is frozen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from bridge.settings import BridgeSettings
from protos.events.v1.mark_pb2 import PositionMark
from protos.events.v1.snapshot_pb2 import SnapshotMark
from tests.faults.oracle import Writer, change_of, check_order, more, writing
from tests.faults.test_bridge_faults import SEED
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.gate import SNAPSHOT, Gate, Stops, after, is_complete, is_end, is_row, of, row_after_marks
from tests.fixtures.stream_reader import POSITION, Reader, Stored
from tests.fixtures.stream_states import check_states, read_all
from zephyr.stack.nats import NatsServer

NOTES = 12_000
"""Two parts of a copy, so that a mark comes in between."""
START_S = 60


class Phases:
    """A bridge behind a gate; each method has it come to one place, and kills it there."""

    def __init__(
        self, process: BridgeProcess, gate: Gate, reader: Reader, settings: BridgeSettings, dsn: str
    ) -> None:
        self.process = process
        self.gate = gate
        self.reader = reader
        self.slot = settings.slot
        self.dsn = dsn
        self.reached: list[str] = []

    async def slot_is_being_made(self) -> None:
        """The temporary slot waits for a transaction that is older."""
        async with await AsyncConnection.connect(self.dsn) as connection:
            await connection.execute("SELECT pg_current_xact_id()")
            self.process.spawn()
            await eventually(self._temporary, timeout=START_S)
            await self._kill("the temporary slot is being made")

    async def held_before(self, what: str, stops: Stops) -> None:
        """It is about to send something, and everything before is stored."""
        await self._comes_to(stops)
        await self._kill(what)

    async def whole_without_slot(self) -> None:
        """The mark of a whole copy is stored, and the slot not made: its session does not answer."""
        await self._comes_to(is_complete)
        with frozen(await self._session()) as session:
            self.gate.stop_before(None)
            await eventually(self._is_whole, timeout=START_S)
            await self._kill("the copy is whole, and no slot is there")
            # It dies before it reads what was asked of it.
            await self._value(f"SELECT pg_terminate_backend({session})")
        await eventually(lambda: self._is_gone(session))
        assert await self._lasting() is None

    @asynccontextmanager
    async def slot_beside_the_temporary_one(self) -> AsyncIterator[None]:
        """The slot is made and its mark not stored; the temporary slot stays while the context is open."""
        await self._comes_to(is_complete)
        with frozen(await self._value(self._of_temporary("active_pid"))):
            self.gate.stop_before(of(POSITION))
            await eventually(lambda: self.gate.is_held, timeout=START_S)
            assert await self._lasting() == self.slot
            assert await self._temporary()
            await self._kill("the slot is made beside the temporary one, no mark says so")
            yield

    async def marked_and_not_streaming(self) -> None:
        """The first position mark of the slot is stored, and reading has not begun."""
        await self._comes_to(of(POSITION))
        with frozen(await self._session()) as session:
            self.gate.stop_before(None)
            await eventually(self._is_marked, timeout=START_S)
            await self._kill("the slot is marked and not read")
            await self._value(f"SELECT pg_terminate_backend({session})")
        await eventually(lambda: self._is_gone(session))

    async def first_change(self) -> None:
        """The first change of the stream is stored, and the second not sent."""
        await self._comes_to(after(1, is_row))

        async def is_stored() -> bool:
            last = await self.reader.get(last_by_subj="zephyr.0.>")
            return last is not None and is_change(last)

        await eventually(is_stored, timeout=START_S)
        await self._kill("the first change is stored")

    async def _comes_to(self, stops: Stops) -> None:
        self.gate.stop_before(stops)
        self.process.spawn()

        def is_held() -> bool:
            self.process.is_ready()
            return self.gate.is_held

        await eventually(is_held, timeout=START_S, what="the bridge comes to the gate")

    async def _kill(self, what: str) -> None:
        assert self.process.process.poll() is None, self.process.log[-2000:]
        self.process.kill()
        await self.gate.forget()
        self.reached.append(what)

    async def _value(self, query: str) -> int:
        async with await AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
        return row[0] if row is not None else 0

    async def _session(self) -> int:
        """The backend that holds the lock, and makes and reads the slot."""
        return await self._value(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    def _of_temporary(self, column: str) -> str:
        return (
            f"SELECT {column} FROM pg_replication_slots WHERE temporary AND database = current_database()"
            " ORDER BY active_pid DESC LIMIT 1"
        )

    async def _temporary(self) -> bool:
        return bool(await self._value(self._of_temporary("1")))

    async def _lasting(self) -> str | None:
        return (
            str(found)
            if (
                found := await self._value(
                    "SELECT slot_name FROM pg_replication_slots WHERE NOT temporary AND database = current_database()"
                )
            )
            else None
        )

    async def _is_gone(self, pid: int) -> bool:
        return not await self._value(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}")

    async def _is_whole(self) -> bool:
        mark = await self.reader.get(last_by_subj=SNAPSHOT)
        return mark is not None and SnapshotMark.FromString(mark.payload).complete

    async def _is_marked(self) -> bool:
        mark = await self.reader.get(last_by_subj=POSITION)
        return mark is not None and PositionMark.FromString(mark.payload).wal_lsn > 0


def is_change(message: Stored) -> bool:
    return "Zephyr-Commit" in message.headers


@contextmanager
def frozen(pid: int) -> Iterator[int]:
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


async def alter_some(dsn: str) -> None:
    """Of what is stored some goes, some moves to another workspace, some changes."""
    some = "SELECT id FROM notes TABLESAMPLE BERNOULLI (2) WHERE title LIKE 'bulk%'"
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        for statement in (
            f"DELETE FROM notes WHERE id IN ({some})",
            f"UPDATE notes SET workspace_id = (SELECT max(id::text)::uuid FROM workspaces) WHERE id IN ({some})",
            f"UPDATE notes SET body = 'changed' WHERE id IN ({some})",
        ):
            await connection.execute(statement.encode())


@pytest.mark.timeout(240)
async def test_killed_at_every_phase_of_a_copy(
    bridge_settings: BridgeSettings, nats_server: NatsServer, stream_reader: Reader, tmp_path: Path
) -> None:
    dsn = bridge_settings.postgres_dsn
    writer = Writer(dsn, SEED)
    await writer.prepare()
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO notes (workspace_id, title, body)"
            " SELECT (SELECT min(id::text)::uuid FROM workspaces), 'bulk ' || n, repeat('x', 400)"
            " FROM generate_series(1, %s) AS n",
            (NOTES,),
        )
    gate = Gate(lambda: nats_server.address)
    async with gate:
        settings = bridge_settings.model_copy(update={"nats_url": gate.url, "publish_timeout_s": 20})
        process = BridgeProcess(tmp_path, environment_for(settings))
        phases = Phases(process, gate, stream_reader, settings, dsn)
        try:
            async with writing(writer):
                await more(writer, 5)
                await phases.slot_is_being_made()
                await phases.held_before("the snapshot is taken, nothing is stored", of(SNAPSHOT))
                await phases.held_before("a mark says that it began", is_row)
                await phases.held_before("some rows are stored", after(1500, is_row))
                await alter_some(dsn)
                await phases.held_before("the stream is half held against the tables", after(3, is_end))
                await phases.held_before("a mark says how far it is", row_after_marks(2))
                await alter_some(dsn)
                await phases.held_before("all rows are stored, no mark says so", is_complete)
                await alter_some(dsn)
                await phases.whole_without_slot()
                await alter_some(dsn)
                await more(writer, 5)
                async with phases.slot_beside_the_temporary_one():
                    await more(writer, 5)
                    await phases.marked_and_not_streaming()
                await phases.first_change()
                await process.start(START_S)
                await more(writer, 10)
            await stream_reader.caught_up(dsn, timeout=30)
        finally:
            process.kill()
    assert len(phases.reached) == 11
    events = [message for message in await read_all(stream_reader) if not message.is_mark]
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    # Every change since the slot, once and in order, and nothing else; before it the copy.
    changes = [message for message in events if is_change(message)]
    check_order(changes)
    found = [change_of(message) for message in changes]
    assert len(found) > 20
    assert found == writer.committed[-len(found) :]
    await check_states(events, dsn)
