"""What a bridge says of itself, to whoever asks on NATS.

Each running bridge, a standby too, answers requests on ``zephyr_bridge.status.<stream>`` with
one JSON object. The subject lies outside of ``zephyr.>``, which the stream would store. The
answers have a connection of their own, which outlives the terms, so that a bridge that waits
or is in trouble says so; that it cannot be made or breaks is no fault of the bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg

from bridge.errors import BridgeError, Unreachable
from bridge.feedback import Feedback
from bridge.heartbeat import Heartbeat
from bridge.jetstream import connect_nats
from bridge.ledger import Ledger
from bridge.publish import OWNER
from bridge.pump import Pump
from bridge.settings import BridgeSettings

log = structlog.get_logger("bridge")

_RETRY_S = 1.0

STARTING, STANDBY, OPENING, LEADER, RETRYING = "starting", "standby", "opening", "leader", "retrying"
"""Roles: not come to the lock yet, waiting for it, holding it, streaming, between two terms."""


def status_subject(stream: str) -> str:
    """Where the bridges of a stream are asked."""
    return f"zephyr_bridge.status.{stream}"


@dataclass(frozen=True, slots=True)
class _Streaming:
    epoch: str
    term: int
    pump: Pump
    ledger: Ledger
    feedback: Feedback


class Status:
    """The present state of one bridge. Reading it costs nothing and waits for nobody."""

    def __init__(self, settings: BridgeSettings, heartbeat: Heartbeat) -> None:
        self._settings = settings
        self._heartbeat = heartbeat
        self._role = STARTING
        self._since = time.time()
        self._streaming: _Streaming | None = None
        self._backend_pid = 0
        self._terms = 0
        self._last_error: str | None = None
        self._last_error_at: float | None = None
        self.stood_by = False

    def stands_by(self) -> None:
        """Another bridge holds the lock."""
        self.stood_by = True
        self._become(STANDBY)

    def opens(self, backend_pid: int) -> None:
        """The lock is ours; the term is being opened."""
        self._backend_pid = backend_pid
        self._become(OPENING)

    def streams(self, epoch: str, term: int, pump: Pump, ledger: Ledger, feedback: Feedback) -> None:
        """The term streams."""
        self._terms += 1
        self._become(LEADER)
        self._streaming = _Streaming(epoch, term, pump, ledger, feedback)

    def ended(self, error: BridgeError) -> None:
        """The term is over, another one will follow."""
        self._become(RETRYING)
        self._backend_pid = 0
        self._last_error, self._last_error_at = error.message, time.time()

    def _become(self, role: str) -> None:
        self._role = role
        self._since = time.time()
        self._streaming = None

    def report(self) -> dict[str, Any]:
        """All of it, as JSON is made from it."""
        beat, held = self._heartbeat, self._heartbeat.held
        report: dict[str, Any] = {
            "owner": OWNER,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "backend_pid": self._backend_pid,
            "role": self._role,
            "since": self._since,
            "slot": self._settings.slot,
            "stream": self._settings.stream,
            "terms": self._terms,
            "last_error": self._last_error,
            "last_error_at": self._last_error_at,
            "heartbeat": {
                "interval_s": self._settings.heartbeat_s,
                "round_trip_s": beat.round_trip_s,
                "waiting_s": beat.waiting_s,
                "is_late": beat.is_late,
            },
            "held_wal_bytes": held.held_bytes if held is not None else None,
        }
        if (streaming := self._streaming) is not None:
            in_flight = streaming.pump.in_flight
            report |= {
                "epoch": streaming.epoch,
                "term": streaming.term,
                "in_flight": {
                    "messages": in_flight.messages,
                    "bytes": in_flight.bytes,
                    "commit_lsn": in_flight.commit_lsn,
                    "index": in_flight.index,
                },
                "stored_lsn": streaming.pump.stored_lsn,
                "confirmed_lsn": streaming.feedback.confirmed_lsn,
                "held_back": {
                    "bytes": streaming.ledger.held_back,
                    "seconds": streaming.ledger.held_for_s(time.monotonic()),
                    "hold_back_s": streaming.ledger.hold_back_s,
                },
            }
        return report


async def answer_status(settings: BridgeSettings, status: Status) -> None:
    """Answers until it is cancelled, connecting as often as need be."""

    async def answer(message: Msg) -> None:
        if message.reply:
            await message.respond(orjson.dumps(status.report()))

    while True:
        closed = asyncio.Event()

        async def note(closed: asyncio.Event = closed) -> None:
            closed.set()

        try:
            connection = await connect_nats(settings.nats_url, settings.publish_timeout_s, note)
        except Unreachable as exc:
            log.debug("status is not answered now", cause=exc.message)
        else:
            try:
                with contextlib.suppress(nats.errors.Error):  # it broke already
                    await connection.subscribe(status_subject(settings.stream), cb=answer)
                    await closed.wait()
            finally:
                await connection.close()
        await asyncio.sleep(_RETRY_S)
