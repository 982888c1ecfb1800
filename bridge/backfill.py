"""Rows of a table into the stream again, while it goes on.

Who wants it asks over NATS; the bridge that streams reads the table in chunks by key, and puts each
chunk into the stream between two watermarks (watermarks.py), as ``read`` events with a mark that
says how far it is. The next term goes on from the last mark. One backfill at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import orjson
import psycopg
import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from psycopg import AsyncConnection, sql

from bridge import chunks
from bridge.change import Value
from bridge.encode import Encoder
from bridge.errors import BridgeError, SourceUnfit, Unreachable
from bridge.fit import FittedMapping, FittedTable
from bridge.jetstream import JetStream
from bridge.outgoing import Outgoing
from bridge.postgres import one_line, parse_lsn, translate
from bridge.states import StateEncoder
from bridge.watermarks import PREFIX, Chunk, Window
from protos.events.v1 import stream_format as fmt
from protos.events.v1.rejected_pb2 import DeadLetter
from protos.events.v1.snapshot_pb2 import BackfillMark

log = structlog.get_logger("bridge")

_FETCH_ROWS = 50
_CHUNK_BYTES = 8 * 1024 * 1024
_TRIES = 20
_SAY_EVERY_S = 10.0
"""Who asked hears of it at least so often."""


class Backfiller:
    """Takes requests and works them off, for one term. ``window`` is for the pump."""

    def __init__(
        self,
        dsn: str,
        jetstream: JetStream,
        fitted: FittedMapping,
        encoder: Encoder,
        system_id: str,
        epoch: str,
        keep: Callable[[DeadLetter], Awaitable[None]] | None = None,
    ) -> None:
        self.window = Window()
        self._dsn = dsn
        self._jetstream = jetstream
        self._fitted = fitted
        self._encoder = encoder
        self._system_id = system_id
        self._epoch = epoch
        self._keep = keep
        self._requests: asyncio.Queue[BackfillMark] = asyncio.Queue(1)
        self._is_busy = False

    async def run(self) -> None:
        """Runs until it is cancelled.

        Raises:
            Unreachable: NATS or Postgres went away.
        """
        unfinished = await self._unfinished()
        if unfinished is not None:
            self._is_busy = True
            self._requests.put_nowait(unfinished)
        subject = fmt.backfill_subject(self._jetstream.stream)
        await self._jetstream.listen(subject, self._take)
        while True:
            mark = await self._requests.get()
            try:
                await self._work(mark)
            except Unreachable:
                raise
            except BridgeError as exc:
                # The table or the condition is at fault, and the stream goes on without it.
                log.warning("a backfill ended", table=mark.table, cause=exc.message)
                await self._give_up(mark, exc.message)
            self._is_busy = False

    async def _unfinished(self) -> BackfillMark | None:
        last = await self._jetstream.last(fmt.BACKFILL_SUBJECT)
        mark = BackfillMark()
        try:
            mark.ParseFromString(last.payload if last is not None else b"")
        except DecodeError:
            return None
        is_ours = mark.epoch == self._epoch and mark.table in self._fitted.tables
        return mark if is_ours and not mark.done else None

    async def _take(self, message: Msg) -> None:
        try:
            given = orjson.loads(message.data)
            mark = BackfillMark(
                epoch=self._epoch,
                id=secrets.token_hex(8),
                table=given["table"],
                condition=given.get("where") or "",
                chunk_rows=min(max(1, int(given.get("chunk_rows") or 500)), 10_000),
                max_rows_per_s=int(given.get("max_rows_per_s") or 0),
                reply=message.reply,
            )
        except (ValueError, KeyError, TypeError) as exc:
            await self._say(message.reply, error=f"the request cannot be read: {exc}")
            return
        if mark.table not in self._fitted.tables:
            known = ", ".join(sorted(self._fitted.tables))
            await self._say(message.reply, error=f"{mark.table!r} is not mapped; mapped are {known}")
        elif self._is_busy:
            await self._say(message.reply, error="another backfill is under way; ask again when it is over")
        else:
            self._is_busy = True
            self._requests.put_nowait(mark)

    async def _work(self, mark: BackfillMark) -> None:
        table = self._fitted.tables[mark.table]
        try:
            connection = await chunks.connect(self._dsn)
        except psycopg.Error as exc:
            raise translate(exc) from exc
        try:
            expected = sum(max(0, each.rows) for each in await chunks.measure(connection, table))
            log.info("a backfill begins", table=mark.table, condition=mark.condition, after=mark.last_key)
            began_at, rows_before = time.monotonic(), mark.rows
            await self._say(mark.reply, table=mark.table, rows=mark.rows, expected=expected)
            while not mark.done:
                await self._chunk(connection, table, mark)
                await self._say(
                    mark.reply, table=mark.table, rows=mark.rows, expected=expected, done=mark.done
                )
                due_at = began_at
                if mark.max_rows_per_s and not mark.done:
                    due_at += (mark.rows - rows_before) / mark.max_rows_per_s
                while (ahead_s := due_at - time.monotonic()) > 0:
                    await asyncio.sleep(min(ahead_s, _SAY_EVERY_S))
                    await self._say(mark.reply, table=mark.table, rows=mark.rows, expected=expected)
            log.info("a backfill is over", table=mark.table, rows=mark.rows)
        except psycopg.Error as exc:
            if connection.closed:
                raise Unreachable(f"Postgres went away during a backfill: {one_line(exc)}") from exc
            raise SourceUnfit(f"the rows of {mark.table} cannot be read: {one_line(exc)}") from exc
        finally:
            await connection.close()

    async def _chunk(self, connection: AsyncConnection[Any], table: FittedTable, mark: BackfillMark) -> None:
        for _ in range(_TRIES):
            window_id = secrets.token_hex(8)
            self.window.expect(window_id, table.oid, table.mapping.key)
            lsn = await _emit(connection, f"{window_id}:low")
            rows, snapshot, now_us, is_last = await self._read(connection, table, mark)
            states = StateEncoder(self._encoder, self._system_id, self._epoch, lsn, now_us, self._keep)
            relation = chunks.relation_of(table)
            at = [column.name for column in relation.columns].index(table.mapping.key)
            read = {str(row[at]): await states.read(relation, row) for row in rows}
            after = BackfillMark()
            after.CopyFrom(mark)
            after.rows += len(rows)
            after.done = is_last
            if rows:
                after.last_key = str(rows[-1][at])
            said = Outgoing(fmt.BACKFILL_SUBJECT, "", after.SerializeToString())
            outcome = self.window.close_with(Chunk(read, snapshot, said))
            await _emit(connection, f"{window_id}:high")
            if await outcome >= 0:
                mark.CopyFrom(after)
                return
        raise SourceUnfit(f"a chunk of {table.mapping.name} changed {_TRIES} times while it was read")

    async def _read(
        self, connection: AsyncConnection[Any], table: FittedTable, mark: BackfillMark
    ) -> tuple[list[tuple[Value, ...]], str, int, bool]:
        """Rows after the mark's key, what the read saw, when, and whether there are no more."""
        mapping = table.mapping
        key = sql.Identifier(mapping.key)
        parts = [sql.SQL("{} IS NOT NULL").format(key)]
        values: list[object] = []
        if mark.last_key:
            type_text = table.columns[mapping.key].type_text.split("(", maxsplit=1)[0]
            parts.append(sql.SQL("{} > %s::text::{}").format(key, sql.SQL(type_text)))
            values.append(mark.last_key)
        if mark.condition:
            # Sent with parameters, so it is one statement whatever it says, and the transaction reads only.
            parts.append(sql.SQL("({})").format(sql.SQL(mark.condition.replace("%", "%%"))))
        query = sql.SQL(
            "DECLARE zephyr_chunk NO SCROLL CURSOR FOR SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT %s"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, mapping.used_columns)),
            await chunks.rows_of(connection, table),
            sql.SQL(" AND ").join(parts),
            key,
        )
        rows: list[tuple[Value, ...]] = []
        size = 0
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            found = await connection.execute(
                "SELECT pg_current_snapshot()::text, (extract(epoch FROM now()) * 1000000)::bigint"
            )
            ((snapshot, now_us),) = await found.fetchall()
            await connection.execute(query, (*values, mark.chunk_rows))
            while True:
                page = await _fetch(connection)
                rows += page
                size += sum(len(value) for row in page for value in row if isinstance(value, str))
                is_last = len(page) < _FETCH_ROWS and len(rows) < mark.chunk_rows
                if is_last or len(page) < _FETCH_ROWS or size > _CHUNK_BYTES:
                    return rows, str(snapshot), int(now_us), is_last
        finally:
            await connection.execute("ROLLBACK")

    async def _give_up(self, mark: BackfillMark, cause: str) -> None:
        """Tells who asked. The mark of a backfill that cannot go on must not make the next term try."""
        mark.done = True
        self.window.leave(Outgoing(fmt.BACKFILL_SUBJECT, "", mark.SerializeToString()))
        await self._say(mark.reply, error=cause)

    async def _say(self, reply: str, **said: object) -> None:
        if not reply:
            return
        try:
            await self._jetstream.connection.publish(reply, orjson.dumps(said))
        except (nats.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc


async def _emit(connection: AsyncConnection[Any], text: str) -> int:
    """Writes a watermark into the WAL, as a transaction of its own; gives where it stands."""
    cursor = await connection.execute("SELECT pg_logical_emit_message(true, %s, %s)::text", (PREFIX, text))
    ((lsn,),) = await cursor.fetchall()
    return parse_lsn(lsn)


async def _fetch(connection: AsyncConnection[Any]) -> list[tuple[Value, ...]]:
    """The next rows of the chunk, in the text that the WAL has values in."""
    cursor = await connection.execute(f"FETCH {_FETCH_ROWS} FROM zephyr_chunk".encode())
    result = cursor.pgresult
    assert result is not None
    return [
        tuple(
            value.decode() if (value := result.get_value(row, column)) is not None else None
            for column in range(result.nfields)
        )
        for row in range(result.ntuples)
    ]
