"""A message of our own through the WAL, and back through the slot: proof that changes arrive.

``pg_logical_emit_message`` on a plain connection writes it, every few seconds, so that the slot
moves on beside tables that are busy and not published, and the pump hands back what came
through. One that does not come back in time is an alarm; so is a slot that holds much WAL,
which the same connection asks for. Nothing here may end the bridge: a role that may not emit
is warned of once, a connection that broke is made again at the next beat.
See docs/decisions/010.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass

import psycopg
import structlog
from psycopg import AsyncConnection

from bridge.alarm import Alarm, Word
from bridge.change import LogicalMessage
from bridge.postgres import one_line
from bridge.settings import BridgeSettings

log = structlog.get_logger("bridge")

PREFIX = "zephyr.heartbeat"
_LATE_AFTER = 3
"""A heartbeat is late after so many intervals."""
_WATCH_S = 10.0
"""How often the slot is looked at where heartbeats are off."""
_TIMEOUT_S = 10
_OUTSTANDING = 64
"""So many heartbeats are waited for; with more under way, the oldest is late by far."""
_GIB = 1024**3

_HELD = """
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - restart_lsn)::bigint,
    wal_status, pg_size_bytes(nullif(current_setting('max_slot_wal_keep_size'), '-1'))
FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class HeldWal:
    """What the server keeps for the slot. ``keep_bytes`` is where it would stop to; None: never."""

    held_bytes: int
    wal_status: str
    keep_bytes: int | None


class Heartbeat:
    """Beats while its bridge leads, through faults as well: an outage is when the WAL grows."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._token = secrets.token_hex(8)
        self._leads = asyncio.Event()
        self._connection: AsyncConnection[tuple[object, ...]] | None = None
        self._emits = settings.heartbeat_s > 0
        self._outstanding: deque[tuple[int, float]] = deque(maxlen=_OUTSTANDING)
        self._number = 0
        self._late = Alarm()
        self._holds_much = Alarm()
        self._lost_connection = Alarm()
        self.round_trip_s: float | None = None
        self.held: HeldWal | None = None

    @property
    def interval_s(self) -> float:
        return self._settings.heartbeat_s or _WATCH_S

    @property
    def is_late(self) -> bool:
        """Whether the oldest heartbeat under way should have come back."""
        return self.waiting_s > _LATE_AFTER * self.interval_s

    @property
    def waiting_s(self) -> float:
        """For how long the oldest heartbeat under way has been; 0 when none is."""
        return time.monotonic() - self._outstanding[0][1] if self._outstanding else 0.0

    def lead(self) -> None:
        """This bridge streams."""
        self._leads.set()

    def stand_back(self) -> None:
        """Another bridge leads: what is under way will not come back here."""
        self._leads.clear()
        self._outstanding.clear()

    def heard(self, message: LogicalMessage) -> None:
        """A message came through the slot."""
        if message.prefix != PREFIX:
            return
        token, _, number = message.content.decode("utf-8", "replace").partition(" ")
        if token != self._token or not number.isdecimal():
            return
        while self._outstanding and self._outstanding[0][0] <= int(number):
            self.round_trip_s = time.monotonic() - self._outstanding.popleft()[1]

    async def run(self) -> None:
        """Beats until it is cancelled."""
        try:
            while True:
                if not self._leads.is_set():
                    await self._disconnect()
                await self._leads.wait()
                await self._beat()
                self._check()
                await asyncio.sleep(self.interval_s)
        finally:
            await self._disconnect()

    async def _beat(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                connection = await self._connected()
                if self._emits:
                    await self._emit(connection)
                cursor = await connection.execute(_HELD, (self._settings.slot,))
                row = await cursor.fetchone()
        except (psycopg.Error, TimeoutError) as exc:
            self.held = None
            if self._lost_connection.check(True, time.monotonic()) is Word.RAISED:
                log.warning("no heartbeat: Postgres gave no answer", cause=one_line(exc) or "timeout")
            await self._disconnect()
            return
        self._lost_connection.check(False, time.monotonic())
        if row is not None and row[0] is not None:
            keep = row[2]
            self.held = HeldWal(int(str(row[0])), str(row[1]), int(str(keep)) if keep is not None else None)

    async def _emit(self, connection: AsyncConnection[tuple[object, ...]]) -> None:
        number, sent_at = self._number + 1, time.monotonic()
        try:
            await connection.execute(
                "SELECT pg_logical_emit_message(true, %s, %s::text)", (PREFIX, f"{self._token} {number}")
            )
        except psycopg.Error as exc:
            if connection.closed or isinstance(exc, psycopg.errors.QueryCanceled):
                raise
            self._emits = False
            log.warning(
                "no heartbeats: the role may not write to the WAL; an idle source cannot be told from a stuck one",
                cause=one_line(exc),
                mend="grant EXECUTE on pg_logical_emit_message, or set ZEPHYR_BRIDGE_HEARTBEAT_S=0",
            )
            return
        self._number = number
        if len(self._outstanding) < _OUTSTANDING:
            self._outstanding.append((number, sent_at))

    async def _connected(self) -> AsyncConnection[tuple[object, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._settings.postgres_dsn,
                autocommit=True,
                connect_timeout=_TIMEOUT_S,
                application_name="zephyr-bridge-heartbeat",
            )
            # A heartbeat must wait neither for the disk nor for synchronous replicas.
            await self._connection.execute("SET synchronous_commit = off")
            await self._connection.execute("SET statement_timeout = '5s'")
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _check(self) -> None:
        now = time.monotonic()
        word = self._late.check(self.is_late, now)
        if word is Word.RAISED:
            log.warning(
                "a heartbeat did not come back through the slot: changes do not arrive, or late",
                waiting_s=round(self.waiting_s, 1),
                mend="see: zephyr bridge status",
            )
        elif word is Word.CLEARED:
            log.info("heartbeats come back", round_trip_s=round(self.round_trip_s or 0, 3))
        held = self.held
        if held is None:
            return
        limit = held_wal_limit(self._settings.held_wal_warn_bytes, held.keep_bytes)
        word = self._holds_much.check(bool(limit) and held.held_bytes >= limit, now)
        if word is Word.RAISED:
            log.warning(
                "the slot holds much WAL: nothing is confirmed before it is stored",
                held_wal_bytes=held.held_bytes,
                warn_bytes=limit,
                max_slot_wal_keep_size=held.keep_bytes,
                wal_status=held.wal_status,
                mend="see what the bridge waits for: zephyr bridge status",
            )
        elif word is Word.CLEARED:
            log.info("the slot holds little WAL again", held_wal_bytes=held.held_bytes)


def held_wal_limit(warn_bytes: int | None, keep_bytes: int | None) -> int:
    """From how many bytes on held WAL is an alarm; 0: never. Unset: 1 GiB, or half of what is kept at most."""
    if warn_bytes is not None:
        return warn_bytes
    return _GIB if keep_bytes is None else min(_GIB, keep_bytes // 2)
