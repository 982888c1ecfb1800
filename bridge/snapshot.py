"""The state of the tables with which an epoch begins, and the slot that goes on from exactly there.

A temporary slot gives a point of the WAL and the snapshot that belongs to it. Rows are read by
several sessions within that snapshot, in parts, and stored by one publisher, fenced. When all of
them are stored, a mark says so, and the temporary slot is copied to the lasting one: nothing lies
between the copy and the changes, and nothing in both.

A copy that was broken off has left marks. The next attempt has a later snapshot: of what was stored
before it reads only what changed since, and what vanished meanwhile it says to be gone.
docs/decisions/012-a-snapshot-precedes-the-slot.md has the reasons.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from bridge import chunks
from bridge.attempt import Attempt, begin_attempt
from bridge.change import Position
from bridge.chunks import CopiedTable, Part
from bridge.encode import Encoder
from bridge.fit import FittedMapping
from bridge.jetstream import JetStream
from bridge.outgoing import Outgoing
from bridge.postgres import Source
from bridge.progress import CopyLedger, CopyProgress
from bridge.publish import Publisher
from bridge.reconcile import Reconciler
from bridge.settings import BridgeSettings
from bridge.slot import ReplicationConnection, open_replication
from bridge.states import StateEncoder
from bridge.stream import StreamState
from bridge.tasks import run_to_the_end
from protos.events.v1 import stream_format as fmt
from protos.events.v1.rejected_pb2 import DeadLetter
from protos.events.v1.snapshot_pb2 import SnapshotMark

log = structlog.get_logger("bridge")

_MARK_EVERY_ROWS = 5000
_QUEUED_BATCHES = 4
_NAME_KEPT = 46
"""Characters of the slot's name in the temporary one's, which has 63 in all."""


@dataclass(frozen=True, slots=True)
class _Batch:
    part: Part
    messages: list[Outgoing]
    is_last: bool


class Snapshot:
    """One attempt at the initial copy, within a term."""

    def __init__(
        self,
        settings: BridgeSettings,
        replication: ReplicationConnection,
        jetstream: JetStream,
        publisher: Publisher,
        fitted: FittedMapping,
        source: Source,
        state: StreamState,
        encoder: Encoder,
        report: Callable[[CopyProgress], None] = lambda _: None,
        keep: Callable[[DeadLetter], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._replication = replication
        self._jetstream = jetstream
        self._publisher = publisher
        self._fitted = fitted
        self._source = source
        self._state = state
        self._encoder = encoder
        self._report = report
        self._keep = keep
        self._mark = SnapshotMark()
        self._marked_rows = 0
        self._began_at = 0.0

    async def run(self) -> int:
        """Copies the tables and makes the slot; gives the WAL position from which it streams.

        Raises:
            BridgeError: see ``bridge.errors``. The next attempt goes on from what is stored.
        """
        try:
            async with AsyncExitStack() as stack:
                return await self._run(stack)
        except psycopg.Error as exc:
            raise chunks.translate_read(exc) from exc

    async def _run(self, stack: AsyncExitStack) -> int:
        settings, tables = self._settings, list(self._fitted.tables.values())
        guard = await self._connect(stack)
        await chunks.hold_still(guard, tables)
        session = await open_replication(settings.postgres_dsn)
        stack.push_async_callback(session.close)
        temporary = f"{settings.slot[:_NAME_KEPT]}_copy_{secrets.token_hex(4)}"
        lsn, snapshot = await session.create_temporary_slot(temporary)
        readers = [await self._connect(stack) for _ in range(settings.snapshot_workers)]
        for reader in readers:
            await chunks.enter_snapshot(reader, snapshot)

        xmin, now_us = await chunks.snapshot_xmin(readers[0])
        measured = [each for table in tables for each in await chunks.measure(readers[0], table)]
        attempt = await self._begin(lsn, measured)
        ledger = CopyLedger(attempt.mark, xmin, measured, attempt.earlier, self._report)
        states = StateEncoder(
            self._encoder, self._source.system_id, self._state.epoch, lsn, now_us, self._keep
        )
        self._began_at = time.monotonic()
        await self._store_mark()
        await self._reconcile(readers[0], states)
        await self._copy(readers, states, ledger, attempt.parts(measured))
        ledger.over()
        await self._store_mark()
        await self._replication.copy_slot(temporary, settings.slot)
        return lsn

    async def _connect(self, stack: AsyncExitStack) -> AsyncConnection[Any]:
        connection = await chunks.connect(self._settings.postgres_dsn)
        stack.push_async_callback(connection.close)
        return connection

    async def _begin(self, lsn: int, tables: Sequence[CopiedTable]) -> Attempt:
        self._mark = SnapshotMark(
            epoch=self._state.epoch,
            term=self._publisher.term,
            consistent_lsn=lsn,
            system_id=self._source.system_id,
            timeline=self._source.timeline,
        )
        last = await self._jetstream.last(fmt.SNAPSHOT_SUBJECT)
        attempt = begin_attempt(self._mark, last.payload if last is not None else None, tables)
        log.info(
            "copying the tables",
            tables=len(tables),
            attempt=attempt.mark.attempt,
            expected_rows=sum(max(0, table.rows) for table in tables),
            at=f"{lsn:X}",
        )
        return attempt

    async def _reconcile(self, reader: AsyncConnection[Any], states: StateEncoder) -> None:
        through = self._publisher.last_sequence
        if await self._jetstream.next(f"{fmt.ROOT}.{fmt.SHARD}.>", 1) is None:
            return
        reconciler = Reconciler(self._jetstream, reader, self._fitted, states, through)
        count = 0
        batch: list[Outgoing] = []
        async with aclosing(reconciler.ends()) as ends:
            async for message in ends:
                batch.append(message)
                count += 1
                size = sum(len(each.payload) for each in batch)
                if len(batch) >= self._publisher.unit_messages or size >= self._publisher.unit_bytes:
                    await self._store(batch)
                    batch = []
                elif self._publisher.seconds_since_mark >= self._look_after_s:
                    await self._renew_if_due(0, 0)
        if batch:
            await self._store(batch)
        log.info("held the stream against the tables", gone=count)

    async def _copy(
        self,
        readers: Sequence[AsyncConnection[Any]],
        states: StateEncoder,
        ledger: CopyLedger,
        parts: deque[Part],
    ) -> None:
        queue: asyncio.Queue[_Batch | None] = asyncio.Queue(_QUEUED_BATCHES)
        working = len(readers)

        async def read(reader: AsyncConnection[Any]) -> None:
            nonlocal working
            while parts:
                await self._read_part(reader, states, parts.popleft(), queue)
            working -= 1
            if not working:
                await queue.put(None)

        await run_to_the_end(*(read(reader) for reader in readers), self._publish(queue, ledger))

    async def _read_part(
        self,
        reader: AsyncConnection[Any],
        states: StateEncoder,
        part: Part,
        queue: asyncio.Queue[_Batch | None],
    ) -> None:
        publisher, relation = self._publisher, part.table.relation
        batch: list[Outgoing] = []
        size = 0
        async with aclosing(chunks.read_rows(reader, part)) as rows:
            async for row in rows:
                message = await states.read(relation, row)
                if batch and (
                    len(batch) >= publisher.unit_messages
                    or size + len(message.payload) > publisher.unit_bytes
                ):
                    await queue.put(_Batch(part, batch, is_last=False))
                    batch, size = [], 0
                batch.append(message)
                size += len(message.payload)
        await queue.put(_Batch(part, batch, is_last=True))

    async def _publish(self, queue: asyncio.Queue[_Batch | None], ledger: CopyLedger) -> None:
        while True:
            try:
                async with asyncio.timeout(self._look_after_s):
                    batch = await queue.get()
            except TimeoutError:
                # A part in which nothing changed takes its time: the marks must not age meanwhile.
                await self._renew_if_due(0, 0)
                continue
            if batch is None:
                return
            if batch.messages:
                await self._store(batch.messages)
            ledger.stored(batch.part, len(batch.messages), batch.is_last)
            if batch.is_last and ledger.rows - self._marked_rows >= _MARK_EVERY_ROWS:
                await self._store_mark()
            await self._throttle(ledger.rows)

    async def _throttle(self, rows: int) -> None:
        limit = self._settings.snapshot_max_rows_per_s
        if limit:
            due_at = self._began_at + rows / limit
            while (ahead_s := due_at - time.monotonic()) > 0:
                # The marks must not age meanwhile.
                await asyncio.sleep(min(ahead_s, self._look_after_s))
                await self._renew_if_due(0, 0)

    @property
    def _look_after_s(self) -> float:
        """When the marks are to be looked after again."""
        return min(self._settings.mark_interval_s, self._publisher.look_pause_s)

    async def _store(self, messages: list[Outgoing]) -> None:
        await self._renew_if_due(len(messages), sum(len(each.payload) for each in messages))
        await self._publisher.publish(messages)

    async def _renew_if_due(self, count: int, size: int) -> None:
        publisher = self._publisher
        await publisher.look_if_due()
        if publisher.owner_due(count, size):
            await publisher.renew_owner()
        if publisher.position_due(count, size):
            # Nothing is streamed yet: the first position mark says it again, and the copy's mark with it.
            await publisher.mark(Position(0, 0), 0, 0)
            await self._store_mark()

    async def _store_mark(self) -> None:
        self._marked_rows = int(self._mark.rows)
        await self._publisher.publish([Outgoing(fmt.SNAPSHOT_SUBJECT, "", self._mark.SerializeToString())])
