"""The replication connection: one Postgres session that locks, creates, reads and confirms.

The advisory lock is taken on this very session and lives as long as it does, through
COPY BOTH, so whoever reads the slot holds the lock and nobody else does. Nothing is
confirmed here but what ``confirm`` is told: libpq is used directly (psycopg's ``pq``),
because ready replication cursors move the confirmed position on keepalives by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
from psycopg import AsyncConnection, pq

from bridge.errors import EpochLost, SlotBusy, SourceUnfit, Unreachable
from bridge.pgoutput import standby_status
from bridge.postgres import SlotState, Source, mend_of, one_line, parse_lsn, translate
from bridge.timeline import parse_history

_READ_BATCH = 512
"""Frames handed over at once, at most: what bounds the memory between reads."""

_LOCK_POLL_S = 0.25
_LOCK_ANSWER_S = 10.0

_OBJECT_IN_USE = "55006"
_UNDEFINED_OBJECT = "42704"
_NOT_IN_STATE = "55000"
_OPERATOR_INTERVENTION = "57"
# OperationalErrors to psycopg, and yet no trouble of the connection: trying again cannot help.
_NOT_SET_UP = (psycopg.errors.ConfigurationLimitExceeded, psycopg.errors.ObjectNotInPrerequisiteState)
_SESSION = (
    # pgoutput writes texts in the session's encoding, and the decoder reads UTF-8.
    "SET client_encoding = 'UTF8'",
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 3",
    "SET bytea_output = 'hex'",
    "SET statement_timeout = 0",
)


class ReplicationConnection:
    """A session in replication mode. Made by ``open_replication``; ``close`` ends it and frees the lock."""

    def __init__(self, connection: AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._write_lock = asyncio.Lock()
        self._ended: str | None = None

    @property
    def backend_pid(self) -> int:
        """The server's process for this session."""
        return int(self._pgconn.backend_pid)

    async def identify(self) -> Source:
        """IDENTIFY_SYSTEM."""
        row = (await self._rows("IDENTIFY_SYSTEM"))[0]
        timeline = int(str(row[1]))
        history = await self._history(timeline) if timeline > 1 else {}
        return Source(str(row[0]), timeline, parse_lsn(str(row[2])), str(row[3]), history)

    async def sender_timeout_s(self) -> float:
        """The server's ``wal_sender_timeout`` in seconds; 0 when it is off."""
        query = "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'"
        return float(str((await self._rows(query))[0][0])) / 1000

    async def lock(self, slot: str, wait_s: float, on_busy: Callable[[], None] = lambda: None) -> None:
        """Takes the lock of a slot; ``on_busy`` is called once, if it must wait. ``wait_s`` may be infinite.

        Raises:
            SlotBusy: another session holds it, still after ``wait_s`` seconds.
            Unreachable: the server went away meanwhile, or gives no answer.
        """
        query = f"SELECT pg_try_advisory_lock(hashtextextended('zephyr.bridge.{slot}', 0))"
        deadline = time.monotonic() + wait_s
        says_busy = True
        while not await self._try_lock(query):
            if says_busy:
                says_busy = False
                on_busy()
            if time.monotonic() >= deadline:
                raise SlotBusy(
                    f"another bridge holds the slot {slot!r}",
                    "stop the other bridge, or give this one its own ZEPHYR_SLOT and ZEPHYR_STREAM",
                )
            await asyncio.sleep(min(_LOCK_POLL_S, wait_s))

    async def _try_lock(self, query: str) -> bool:
        try:
            async with asyncio.timeout(_LOCK_ANSWER_S):
                return str((await self._rows(query))[0][0]) in ("t", "True")
        except TimeoutError as exc:
            # Whoever waits without end must notice that the server is not there any more.
            raise Unreachable(f"Postgres gave no answer within {_LOCK_ANSWER_S:g} s") from exc

    async def slot_state(self, slot: str) -> SlotState | None:
        """The slot, or None when there is none.

        Raises:
            SourceUnfit: a slot of that name is not ours to read.
            EpochLost: the server invalidated it, so WAL that it should have kept is gone.
        """
        rows = await self._rows(
            # The name was checked with the settings; this protocol has no parameters.
            "SELECT plugin, database, current_database(), wal_status, confirmed_flush_lsn::text, active_pid"  # noqa: S608
            f" FROM pg_replication_slots WHERE slot_name = '{slot}'"
        )
        if not rows:
            return None
        plugin, database, here, wal_status, confirmed, pid = rows[0]
        if plugin != "pgoutput" or database != here:
            raise SourceUnfit(
                f"the slot {slot!r} exists with plugin {plugin} in database {database}",
                f"drop it, or name another with ZEPHYR_SLOT (wanted: pgoutput in {here})",
            )
        if wal_status == "lost":
            raise _invalidated(slot)
        return SlotState(parse_lsn(str(confirmed)), int(str(pid)) if pid is not None else None)

    async def create_slot(self, slot: str) -> int:
        """Creates the slot without a snapshot; gives its consistent point."""
        rows = await self._rows(
            f"CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT 'nothing', TWO_PHASE false)"
        )
        return parse_lsn(str(rows[0][1]))

    async def create_temporary_slot(self, slot: str) -> tuple[int, str]:
        """A slot that ends with this session, and the name of the snapshot of its consistent point.

        The snapshot can be entered as long as nothing else is asked of this session.
        """
        await self._rows(
            "SELECT set_config(name, '0', false) FROM pg_settings"
            " WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout')"
        )
        rows = await self._rows(
            f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        )
        return parse_lsn(str(rows[0][1])), str(rows[0][2])

    async def drop_any(self, slot: str) -> None:
        """Drops a slot of that name if there is one; an invalidated one as well."""
        if await self._rows(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}'"):  # noqa: S608
            await self.drop_slot(slot)

    async def copy_slot(self, source: str, target: str) -> None:
        """A lasting slot that stands where the temporary one of another session stands."""
        await self._rows(
            f"SELECT lsn FROM pg_copy_logical_replication_slot('{source}', '{target}', false)"  # noqa: S608
        )

    async def drop_slot(self, slot: str) -> None:
        """Drops the slot, waiting until nobody reads it."""
        await self._rows(f"DROP_REPLICATION_SLOT {slot} WAIT")

    async def start(self, slot: str, publication: str) -> None:
        """START_REPLICATION from where the slot was confirmed.

        Raises:
            SlotBusy: somebody else reads the slot.
            EpochLost: it is gone or invalidated since it was looked at.
            Unreachable: the connection broke.
        """
        command = (
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
            f" (proto_version '1', publication_names '\"{publication}\"', messages 'true')"
        )
        try:
            self._pgconn.send_query(command.encode())
        except psycopg.Error as exc:
            raise Unreachable(f"Postgres went away: {one_line(exc)}") from exc
        await self._flush()
        while self._pgconn.is_busy():
            await self._readable()
            self._consume()
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            field = result.error_field(pq.DiagnosticField.SQLSTATE) if result is not None else None
            state = field.decode() if field is not None else ""
            text = " ".join(result.get_error_message().split()) if result is not None else "no answer"
            if state == _OBJECT_IN_USE:
                raise SlotBusy(f"the slot {slot!r} is read by another session: {text}", "stop that session")
            if state == _UNDEFINED_OBJECT and f'"{slot}"' in text:
                raise EpochLost(
                    f"the slot {slot!r} is gone: changes may be missing", "run: zephyr bridge new-epoch"
                )
            if state == _NOT_IN_STATE and "can no longer" in text:
                raise _invalidated(slot)
            # Without a state libpq says that the connection broke; class 57 is a server that stops.
            if not state or state.startswith(_OPERATOR_INTERVENTION):
                raise Unreachable(f"Postgres went away: {text}")
            raise SourceUnfit(f"the slot {slot!r} cannot be read: {text}", "see the server's log")

    async def read(self, timeout_s: float) -> list[bytes]:
        """The frames that have come, waiting for the first; an empty list after ``timeout_s``.

        Raises:
            Unreachable: the server ended the stream or the connection broke.
        """
        frames = self._take()
        if not frames:
            # Under load there is more to read already, and nothing to wait for.
            self._consume()
            frames = self._take()
        if not frames:
            try:
                async with asyncio.timeout(timeout_s):
                    while not frames:
                        await self._readable()
                        self._consume()
                        frames = self._take()
            except TimeoutError:
                return []
        # One reading of the socket is few frames: what has come meanwhile is taken along.
        while self._ended is None and len(frames) < _READ_BATCH // 2:
            self._consume()
            more = self._take()
            if not more:
                break
            frames += more
        return frames

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        """Tells the server that everything before ``lsn`` may go; 0 only says that we live."""
        # One writer at a time: a frame that is not flushed must not be interleaved.
        async with self._write_lock:
            frame = standby_status(lsn, time.time_ns() // 1000, reply_requested)
            try:
                self._pgconn.put_copy_data(frame)
            except psycopg.Error as exc:
                raise Unreachable(f"Postgres went away: {one_line(exc)}") from exc
            await self._flush()

    async def close(self) -> None:
        """Ends the session."""
        await self._connection.close()

    async def _rows(self, query: str) -> list[tuple[object, ...]]:
        try:
            # Walsender sessions speak the simple protocol only: no parameters, nothing prepared.
            cursor = await self._connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as exc:
            if isinstance(exc, psycopg.OperationalError) and not isinstance(exc, _NOT_SET_UP):
                raise translate(exc) from exc
            raise SourceUnfit(
                f"Postgres refused {query.split('(', maxsplit=1)[0].strip()}: {one_line(exc)}", mend_of(exc)
            ) from exc

    def _take(self) -> list[bytes]:
        frames: list[bytes] = []
        try:
            while self._ended is None and len(frames) < _READ_BATCH:
                size, data = self._pgconn.get_copy_data(1)
                if size > 0:
                    frames.append(bytes(data))
                elif size == 0:
                    break
                else:
                    result = self._pgconn.get_result()
                    reason = result.get_error_message() if result is not None else ""
                    self._ended = reason or "it is shutting down"
        except psycopg.Error as exc:
            self._ended = one_line(exc)
        if self._ended is not None and not frames:
            raise Unreachable(f"Postgres ended the replication stream: {self._ended}")
        return frames

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as exc:
            raise Unreachable(f"Postgres went away: {one_line(exc)}") from exc

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pgconn.flush():
                await _once(loop.add_writer, loop.remove_writer, self._pgconn.socket)
        except psycopg.Error as exc:
            raise Unreachable(f"Postgres went away: {one_line(exc)}") from exc

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await _once(loop.add_reader, loop.remove_reader, self._pgconn.socket)
        except psycopg.Error as exc:
            raise Unreachable(f"Postgres went away: {one_line(exc)}") from exc

    async def _history(self, timeline: int) -> dict[int, int] | None:
        """TIMELINE_HISTORY: where each timeline before this one was left; None when the server lost the file."""
        try:
            cursor = await self._connection.execute(f"TIMELINE_HISTORY {timeline}".encode())
        except psycopg.errors.UndefinedFile:
            return None
        except psycopg.Error as exc:
            raise translate(exc) from exc
        # The file as it is, though the server calls the column bytea.
        content = cursor.pgresult.get_value(0, 1) if cursor.pgresult is not None else None
        return parse_history(content or b"")


async def open_replication(dsn: str) -> ReplicationConnection:
    """Connects in replication mode, with the text formats pinned that values are read in.

    Raises:
        Unreachable, SourceUnfit, SettingInvalid: see ``translate``.
    """
    try:
        connection = await AsyncConnection.connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            replication="database",
            application_name="zephyr-bridge",
            connect_timeout=10,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            # What we send and nobody acknowledges, as when the host is cut off: milliseconds.
            tcp_user_timeout=30_000,
        )
    except psycopg.Error as exc:
        raise translate(exc) from exc
    replication = ReplicationConnection(connection)
    try:
        for statement in _SESSION:
            await replication._rows(statement)
    except BaseException:
        await replication.close()
        raise
    return replication


def _invalidated(slot: str) -> EpochLost:
    return EpochLost(
        f"the server invalidated the slot {slot!r}: WAL that was not yet in the stream is gone",
        "raise max_slot_wal_keep_size, then run: zephyr bridge new-epoch",
    )


async def _once(add: Callable[..., None], remove: Callable[[int], object], socket: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add(socket, _wake, future)
    try:
        await future
    finally:
        remove(socket)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
