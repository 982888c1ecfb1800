"""One term: all that stands between the lock and the first change, opened step by step.

Lead (session and lock), then the origin (source, slot, fit, publication), the target (NATS,
stream, owner mark, tail), their join (the slot, or the first copy), and what runs. Whoever does
not hold the lock writes nothing. Everything opened is closed in the reverse order, by the
caller's exit stack; no step mends a fault of another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from bridge.backfill import Backfiller
from bridge.change import LogicalMessage, Position
from bridge.continuity import check_slot, repeated_lsn
from bridge.encode import Encoder
from bridge.feedback import Feedback
from bridge.fit import FittedMapping
from bridge.heartbeat import Heartbeat
from bridge.ledger import Ledger
from bridge.mapping import Mapping
from bridge.origin import Origin, find_origin
from bridge.progress import CopyProgress
from bridge.pump import Pump
from bridge.schema_gate import SchemaGate
from bridge.settings import BridgeSettings
from bridge.slot import ReplicationConnection, open_replication
from bridge.snapshot import Snapshot
from bridge.status import Status
from bridge.target import Target, open_target
from bridge.tasks import run_until_one_ends
from protos.events.v1 import stream_format as fmt

log = structlog.get_logger("bridge")

_HEADER_ROOM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Term:
    """What a term that streams says of itself."""

    slot: str
    stream: str
    epoch: str
    term: int
    position: Position | None


@dataclass(frozen=True, slots=True)
class OpenTerm:
    """A term whose slot streams, and the parts that run until one of them fails."""

    about: Term
    pump: Pump
    ledger: Ledger
    feedback: Feedback
    backfiller: Backfiller

    async def run(self) -> None:
        """Streams until something breaks; the error says what.

        Raises:
            BridgeError: see ``bridge.errors``.
        """
        await run_until_one_ends(self.pump.run(), self.feedback.run(), self.backfiller.run())


class TermOpener:
    """Opens one term after another, and keeps what a term learns for the next one.

    ``has_copied`` and ``has_opened``: a term of this process came so far as to copy the tables,
    and to stream.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        heartbeat: Heartbeat,
        status: Status,
        on_progress: Callable[[CopyProgress], None],
    ) -> None:
        self._settings = settings
        self._heartbeat = heartbeat
        self._status = status
        self._on_progress = on_progress
        self._fitted: FittedMapping | None = None
        self.has_copied = False
        self.has_opened = False

    async def open(self, stack: AsyncExitStack, mapping: Mapping) -> OpenTerm:
        """Opens all of a term; ``stack`` closes it.

        Raises:
            BridgeError: see ``bridge.errors``.
        """
        replication, sender_timeout_s = await self._lead(stack)
        origin = await find_origin(replication, self._settings, mapping, self._fitted)
        self._fitted = origin.fitted
        target = await open_target(stack, self._settings, origin)
        wal_lsn = await self._join(origin, target)
        term = await self._assemble(origin, target, wal_lsn, sender_timeout_s)
        await replication.start(self._settings.slot, self._settings.publication)
        self.has_opened = True
        return term

    async def _lead(self, stack: AsyncExitStack) -> tuple[ReplicationConnection, float]:
        """The session that holds the lock, and how long the server lets it be silent, in seconds."""
        replication = await open_replication(self._settings.postgres_dsn)
        stack.push_async_callback(replication.close)
        sender_timeout_s = await replication.sender_timeout_s()
        await replication.lock(self._settings.slot, self._lock_wait_s(sender_timeout_s), self._stand_by)
        self._status.opens(replication.backend_pid)
        return replication, sender_timeout_s

    def _lock_wait_s(self, sender_timeout_s: float) -> float:
        if self._settings.standby:
            return math.inf
        # A session of ours that the network cut off keeps the lock until the server gives it up.
        wait_s = self._settings.lock_wait_s
        return max(wait_s, sender_timeout_s + 5) if self.has_opened else wait_s

    def _stand_by(self) -> None:
        if self._settings.standby:
            log.info("standing by: another bridge leads", slot=self._settings.slot)
            self._heartbeat.stand_back()
            self._status.stands_by()

    async def _join(self, origin: Origin, target: Target) -> int:
        """Makes the slot if need be; gives the WAL position up to which the stream is known to be whole."""
        slot, tail = origin.slot, target.tail
        check_slot(self._settings.slot, slot, tail.mark)
        wal_lsn = tail.mark.wal_lsn
        if slot is None:
            log.info("making the slot", slot=self._settings.slot)
            if self._settings.snapshot == "initial":
                wal_lsn = await self._copy_tables(origin, target)
            else:
                wal_lsn = await origin.replication.create_slot(self._settings.slot)
        elif not wal_lsn:
            wal_lsn = slot.confirmed_lsn
        # Each term renews both marks, so that no number of short terms makes a limit evict one.
        await target.publisher.mark(
            tail.position or Position(0, 0), wal_lsn, tail.mark.wal_time, tail.commit_time_us
        )
        return wal_lsn

    async def _copy_tables(self, origin: Origin, target: Target) -> int:
        self.has_copied = True
        snapshot = Snapshot(
            self._settings,
            origin.replication,
            target.jetstream,
            target.publisher,
            origin.fitted,
            origin.source,
            target.state,
            self._encoder(origin, target),
            self._on_progress,
            target.keep,
        )
        return await snapshot.run()

    def _encoder(self, origin: Origin, target: Target) -> Encoder:
        source = origin.source
        limit = self._event_limit(target.jetstream.max_payload)
        return Encoder(
            origin.fitted, source.system_id, source.database, target.epoch, limit, self._settings.kinds
        )

    def _event_limit(self, max_payload: int) -> int:
        limit = min(self._settings.max_event_bytes, max_payload - _HEADER_ROOM_BYTES)
        if limit < self._settings.max_event_bytes and not self.has_opened:
            log.warning(
                "the broker takes smaller messages than events may be; set max_payload: 9MB in its configuration",
                max_payload=max_payload,
                max_event_bytes=limit,
            )
        return limit

    async def _assemble(
        self, origin: Origin, target: Target, wal_lsn: int, sender_timeout_s: float
    ) -> OpenTerm:
        """Puts together what runs while the term streams."""
        settings, epoch, position = self._settings, target.epoch, target.tail.position
        encoder = self._encoder(origin, target)
        ledger = Ledger(settings.hold_back_s)
        ledger.stored(wal_lsn, time.monotonic())
        pump = Pump(
            origin.replication,
            encoder,
            target.publisher,
            ledger,
            position,
            wal_lsn,
            settings.mark_interval_s,
            target.keep,
            target.tail.commit_time_us,
        )
        pump.sequencer.expected_lsn = repeated_lsn(origin.slot, position)
        last_said = await target.jetstream.last(fmt.SCHEMA_SUBJECT)
        said = last_said.payload if last_said is not None else b""
        encoder.altered = SchemaGate(encoder, pump.outbox, settings.on_schema_change, epoch, said).altered
        backfiller = Backfiller(
            settings.postgres_dsn,
            target.jetstream,
            origin.fitted,
            self._encoder(origin, target),
            origin.source.system_id,
            epoch,
            target.keep,
        )
        pump.sequencer.window = backfiller.window

        def heard(message: LogicalMessage) -> None:
            self._heartbeat.heard(message)
            backfiller.window.heard(message)
            if message.prefix == fmt.PROGRESS:
                pump.sender.mark_soon(message.lsn)

        pump.sequencer.on_message = heard
        feedback = Feedback(origin.replication, ledger, settings.mark_interval_s, sender_timeout_s)
        about = Term(settings.slot, settings.stream, epoch, target.publisher.term, position)
        return OpenTerm(about, pump, ledger, feedback, backfiller)
