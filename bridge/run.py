"""The bridge's life: one term after another.

A term opens in this order: replication session, lock, fit of mapping and schema,
publication, NATS, stream, owner mark, tail, slot. Any fault ends it, and the next one
begins from what stands in the stream; no fault has a way of its own. Everything a term
opened is closed in the reverse order.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from bridge.backfill import Backfiller
from bridge.change import LogicalMessage, Position
from bridge.dead_letters import DeadLetters
from bridge.encode import Encoder
from bridge.epoch import start_new_epoch
from bridge.errors import (
    BridgeError,
    EpochLost,
    Fenced,
    HistoryGone,
    MappingMismatch,
    SettingInvalid,
    SlotBusy,
    Unreachable,
)
from bridge.feedback import Feedback
from bridge.fit import FittedMapping, check_fit
from bridge.heartbeat import Heartbeat
from bridge.ingest import FastIngest
from bridge.jetstream import JetStream, connect_nats
from bridge.ledger import Ledger
from bridge.mapping import Mapping, load_mapping
from bridge.postgres import SlotState, translate
from bridge.progress import CopyProgress
from bridge.publication import ensure_publication
from bridge.publish import Publisher, Tail
from bridge.pump import Pump
from bridge.schema_gate import SchemaGate
from bridge.settings import BridgeSettings
from bridge.slot import ReplicationConnection, open_replication
from bridge.snapshot import Snapshot
from bridge.status import Status, answer_status
from bridge.stream import StreamState, create_stream, fit_stream, new_epoch, read_stream
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark
from protos.events.v1.rejected_pb2 import DeadLetter

log = structlog.get_logger("bridge")

_HEADER_ROOM_BYTES = 64 * 1024
_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 5.0
_SOUND_TERM_S = 1.0
"""After a term that streamed for so long the pause begins anew; shorter ones let it grow."""
_RENEWAL_LOCK_S = 5.0
"""How long the session of the term that lost the epoch may hold the lock."""


@dataclass(frozen=True, slots=True)
class Term:
    """What a term that streams says of itself."""

    slot: str
    stream: str
    epoch: str
    term: int
    position: Position | None


class Bridge:
    """Turns the commits of one source into one stream, until it is cancelled.

    ``on_term`` is told each term that streams, and None when it is over; ``on_progress`` how far
    a copy of the tables is.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        mapping: Mapping,
        on_term: Callable[[Term | None], None] = lambda _: None,
        on_progress: Callable[[CopyProgress], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._mapping = mapping
        self._on_term = on_term
        self._on_progress = on_progress
        self._fitted: FittedMapping | None = None
        self._has_streamed = False
        self._has_renewed = self._renews = False
        # Both servers were there and fit: a copy that takes hours goes on as a stream does.
        self._has_copied = False
        self._pause_s = _PAUSE_MIN_S
        self._streamed_at = 0.0
        self._heartbeat = Heartbeat(settings)
        self._status = Status(settings, self._heartbeat)

    async def run(self) -> None:
        """Runs terms for ever. Until the first one copies or streams, an unreachable server is an error.

        Raises:
            BridgeError: what cannot be mended by trying again.
        """
        await _run_together(
            self._run_terms(), self._heartbeat.run(), answer_status(self._settings, self._status)
        )

    async def _run_terms(self) -> None:
        while True:
            try:
                if self._renews:
                    await start_new_epoch(self._settings, max(self._settings.lock_wait_s, _RENEWAL_LOCK_S))
                    self._renews = False
                async with AsyncExitStack() as stack:
                    await self._run_term(stack)
            except (EpochLost, HistoryGone) as exc:
                # Once: what a new epoch does not mend is not mended by another one.
                if self._settings.on_epoch_lost != "renew" or self._has_renewed:
                    raise
                self._has_renewed = self._renews = True
                log.warning("the epoch is lost, beginning a new one", cause=exc.message)
                continue
            except MappingMismatch as exc:
                # Before the first term that streams it is the setting up that is wrong.
                if not self._has_streamed:
                    raise
                self._status.ended(exc)
                log.error(
                    "paused until mapping and tables fit", cause=exc.message, pause_s=round(self._pause_s, 2)
                )
                self._reload_mapping()
            except (Unreachable, SlotBusy, Fenced) as exc:
                if not self._goes_on_after(exc):
                    raise
                self._status.ended(exc)
                log.warning(
                    "term ended, beginning another", cause=exc.message, pause_s=round(self._pause_s, 2)
                )
            finally:
                self._on_term(None)
            if self._streamed_at and time.monotonic() - self._streamed_at >= _SOUND_TERM_S:
                self._pause_s = _PAUSE_MIN_S
            self._streamed_at = 0.0
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1))
            self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)

    def _reload_mapping(self) -> None:
        """Reads the mapping file again: whoever mends a mismatch there need not stop the bridge."""
        if self._settings.mapping is None:
            return
        try:
            self._mapping = load_mapping(self._settings.mapping)
        except SettingInvalid as exc:
            log.error("the mapping file cannot be taken, going on with the former one", cause=exc.message)

    def _goes_on_after(self, exc: BridgeError) -> bool:
        if isinstance(exc, Unreachable):
            return self._has_streamed or self._has_copied or self._status.stood_by
        # The other one leads: to a standby that is no error. It waits again. See docs/decisions/007.
        return self._settings.standby

    def _stand_by(self) -> None:
        if self._settings.standby:
            log.info("standing by: another bridge leads", slot=self._settings.slot)
            self._heartbeat.stand_back()
            self._status.stands_by()

    async def _run_term(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        replication = await open_replication(settings.postgres_dsn)
        stack.push_async_callback(replication.close)
        sender_timeout_s = await replication.sender_timeout_s()
        await replication.lock(settings.slot, self._lock_wait_s(sender_timeout_s), self._stand_by)
        self._status.opens(replication.backend_pid)
        source = await replication.identify()
        slot = await replication.slot_state(settings.slot)
        fitted = await self._prepare_source(slot)

        connection = await connect_nats(settings.nats_url, settings.publish_timeout_s)
        stack.push_async_callback(connection.close)
        jetstream = FastIngest(connection, settings.stream, settings.publish_timeout_s)
        await jetstream.open()

        state = await self._open_stream(jetstream, slot)
        jetstream.allows_runs = state.allows_runs
        publisher = Publisher(jetstream, state, source)
        if state.last_sequence == 0:
            await publisher.write_first_position()
        self._check_slot(slot, await publisher.read_mark())
        await publisher.begin_term()
        tail = await publisher.read_tail()

        def make_encoder() -> Encoder:
            limit = self._event_limit(jetstream.max_payload)
            return Encoder(fitted, source.system_id, source.database, state.epoch, limit)

        keep = self._letters_of(jetstream, state.epoch)

        async def copy_tables() -> int:
            self._has_copied = True
            return await Snapshot(
                settings,
                replication,
                jetstream,
                publisher,
                fitted,
                source,
                state,
                make_encoder(),
                self._on_progress,
                keep,
            ).run()

        wal_lsn = await self._open_slot(replication, publisher, tail, slot, copy_tables)

        encoder = make_encoder()
        ledger = Ledger(settings.hold_back_s)
        ledger.stored(wal_lsn, time.monotonic())
        pump = Pump(
            replication,
            encoder,
            publisher,
            ledger,
            tail.position,
            wal_lsn,
            settings.mark_interval_s,
            keep,
        )
        if slot is not None and tail.position is not None and slot.confirmed_lsn <= tail.position.lsn:
            pump.sequencer.expected_lsn = tail.position.lsn
        last_said = await jetstream.last(fmt.SCHEMA_SUBJECT)
        gate = SchemaGate(
            encoder,
            pump.outbox,
            settings.on_schema_change,
            state.epoch,
            last_said.payload if last_said is not None else b"",
        )
        encoder.altered = gate.altered
        backfiller = Backfiller(
            settings.postgres_dsn, jetstream, fitted, make_encoder(), source.system_id, state.epoch, keep
        )
        pump.sequencer.window = backfiller.window

        def heard(message: LogicalMessage) -> None:
            self._heartbeat.heard(message)
            backfiller.window.heard(message)

        pump.sequencer.on_message = heard
        feedback = Feedback(replication, ledger, settings.mark_interval_s, sender_timeout_s)
        await replication.start(settings.slot, settings.publication)
        self._status.streams(state.epoch, publisher.term, pump, ledger, feedback)
        self._streams(Term(settings.slot, settings.stream, state.epoch, publisher.term, tail.position))
        await _run_together(pump.run(), feedback.run(), backfiller.run())

    def _lock_wait_s(self, sender_timeout_s: float) -> float:
        if self._settings.standby:
            return math.inf
        # A session of ours that the network cut off keeps the lock until the server gives it up.
        wait_s = self._settings.lock_wait_s
        return max(wait_s, sender_timeout_s + 5) if self._has_streamed else wait_s

    async def _prepare_source(self, slot: SlotState | None) -> FittedMapping:
        try:
            async with await psycopg.AsyncConnection.connect(
                self._settings.postgres_dsn,
                autocommit=True,
                connect_timeout=10,
                application_name="zephyr-bridge-setup",
            ) as connection:
                publication = self._settings.publication
                try:
                    fitted = await check_fit(connection, self._mapping)
                except MappingMismatch:
                    if self._fitted is None or self._settings.on_schema_change == "pause":
                        raise
                    # Rows of the altered table go to the dead letters, by what was checked before.
                    return self._fitted
                await ensure_publication(connection, publication, self._mapping.tables, create=slot is None)
                # Now that it is there: it may filter rows or columns.
                await check_fit(connection, self._mapping, publication)
                self._fitted = fitted
                return fitted
        except psycopg.OperationalError as exc:
            raise translate(exc) from exc

    async def _open_stream(self, jetstream: JetStream, slot: SlotState | None) -> StreamState:
        info = await read_stream(jetstream)
        if info is not None:
            return fit_stream(info, self._settings)
        if slot is not None:
            raise HistoryGone(
                f"there is no stream {self._settings.stream!r}, but a slot {self._settings.slot!r} that fed one:"
                " what it held is gone",
                "restore the stream, name the right ones with ZEPHYR_STREAM and ZEPHYR_SLOT, or run:"
                " zephyr bridge new-epoch",
            )
        log.info("making the stream", stream=self._settings.stream)
        return await create_stream(jetstream, self._settings, new_epoch())

    def _check_slot(self, slot: SlotState | None, mark: PositionMark) -> None:
        """Holds the slot against the last mark, before anything is written.

        Raises:
            EpochLost: changes between the two may be missing.
        """
        name = self._settings.slot
        if mark.wal_lsn == 0:
            return
        if slot is None:
            raise EpochLost(
                f"the slot {name!r} is gone: changes since {mark.wal_lsn:X} may be missing",
                "run: zephyr bridge new-epoch",
            )
        if slot.confirmed_lsn > mark.wal_lsn:
            raise EpochLost(
                f"the stream lost its end: the slot {name!r} was confirmed to {slot.confirmed_lsn:X}, the last"
                f" mark says {mark.wal_lsn:X}",
                "run: zephyr bridge new-epoch; then raise ZEPHYR_BRIDGE_HOLD_BACK_S above the broker's sync_interval",
            )

    async def _open_slot(
        self,
        replication: ReplicationConnection,
        publisher: Publisher,
        tail: Tail,
        slot: SlotState | None,
        copy_tables: Callable[[], Awaitable[int]],
    ) -> int:
        """Makes the slot if need be; gives the WAL position up to which the stream is known to be whole."""
        self._check_slot(slot, tail.mark)
        wal_lsn = tail.mark.wal_lsn
        if slot is None:
            log.info("making the slot", slot=self._settings.slot)
            if self._settings.snapshot == "initial":
                wal_lsn = await copy_tables()
            else:
                wal_lsn = await replication.create_slot(self._settings.slot)
        elif not wal_lsn:
            wal_lsn = slot.confirmed_lsn
        # Each term renews both marks, so that no number of short terms makes a limit evict one.
        await publisher.mark(tail.position or Position(0, 0), wal_lsn, tail.mark.wal_time)
        return wal_lsn

    def _letters_of(self, jetstream: JetStream, epoch: str) -> Callable[[DeadLetter], Awaitable[None]] | None:
        if self._settings.on_poison == "stop":
            return None
        letters = DeadLetters(jetstream, self._settings.stream, self._settings.stream_replicas)
        return functools.partial(letters.store, epoch)

    def _event_limit(self, max_payload: int) -> int:
        limit = min(self._settings.max_event_bytes, max_payload - _HEADER_ROOM_BYTES)
        if limit < self._settings.max_event_bytes and not self._has_streamed:
            log.warning(
                "the broker takes smaller messages than events may be; set max_payload: 9MB in its configuration",
                max_payload=max_payload,
                max_event_bytes=limit,
            )
        return limit

    def _streams(self, term: Term) -> None:
        self._has_streamed = True
        self._has_renewed = False
        self._streamed_at = time.monotonic()
        self._heartbeat.lead()
        log.info("streaming", slot=term.slot, stream=term.stream, epoch=term.epoch, term=term.term)
        self._on_term(term)


async def _run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all until one of them ends, and ends the others.

    Not a TaskGroup: under Python 3.11 one that failed leaves its parent marked as cancelled,
    and the next term would take that for an order to stop.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for error in ended if isinstance(error, Exception)]
    if errors:
        # One that cannot be mended by trying again goes first.
        raise min(errors, key=lambda error: isinstance(error, Unreachable) + isinstance(error, BridgeError))
