"""From the outbox to the stream: one unit in flight, marks on their way with it.

A unit begins when the one before it is acknowledged, so two are never in flight together
(of two pipelined ones the first could lose a message and the second be stored). Under load a
run carries its own position mark as its last message; a lone event goes alone, and the mark
follows in its time. Domain events are always stored with their mark (docs/decisions/025).
The ledger is told only of what a stored mark covers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from bridge.change import Position
from bridge.ledger import Ledger
from bridge.outbox import Outbox, Unit
from bridge.publish import Publisher
from protos.events.v1.rejected_pb2 import DeadLetter

_ASKED_EVERY_S = 0.02
"""Marks that are asked for are written no more often, whoever asks."""
_MARK_EVERY_MESSAGES = 1000
"""What is confirmed stays behind what is stored by at most so many messages, and a unit."""


class Sender:
    """Stores what the outbox has. ``in_flight`` and ``in_flight_bytes`` are of the unit on its way."""

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        ledger: Ledger,
        mark_interval_s: float,
        keep: Callable[[DeadLetter], Awaitable[None]] | None = None,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._ledger = ledger
        self._mark_interval_s = mark_interval_s
        self._keep = keep
        self.stored: Position = outbox.position
        """The last change that is stored."""
        self._stored_time_us = outbox.commit_time_us
        self.stored_lsn = outbox.wal_lsn
        """Everything before it is stored, or does not concern the stream."""
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._wal_time_us = 0
        self._marked_time_us = 0
        self._marked_lsn = -1
        self._asked_lsn = -2

    def mark_soon(self, lsn: int) -> None:
        """Somebody waits for a mark that says that the source was read past ``lsn``."""
        self._asked_lsn = max(self._asked_lsn, lsn)

    async def run(self) -> None:
        """Sends until the outbox is closed and empty.

        Raises:
            BridgeError: see ``bridge.errors``; the term is over.
        """
        outbox = self._outbox
        while True:
            pause_s = min(self._mark_interval_s, self._publisher.look_pause_s)
            await outbox.filled(_ASKED_EVERY_S if self._is_asked else pause_s)
            await self._publisher.look_if_due()
            await self._store(outbox.take())
            # In a transaction as well: one that stalls, or is only skipped, must not let the marks age.
            await self._mark_if_due()
            if outbox.is_closed and not outbox.messages:
                return

    async def _store(self, unit: Unit) -> None:
        self._wal_time_us = max(self._wal_time_us, unit.wal_time_us)
        publisher, count = self._publisher, len(unit.messages)
        if not count:
            self.stored_lsn = unit.wal_lsn
            return
        if publisher.owner_due(count, unit.size):
            await publisher.renew_owner()
        is_due = (
            publisher.position_due(count, unit.size)
            or publisher.messages_since_mark + count > _MARK_EVERY_MESSAGES
        )
        carries_mark = (is_due and count > 1) or unit.is_atomic
        self.in_flight, self.in_flight_bytes = count, unit.size
        try:
            for letter in unit.letters:
                assert self._keep is not None, "who adds letters gives them a place"
                await self._keep(letter)
            if carries_mark:
                mark = publisher.position_mark(
                    unit.position, unit.wal_lsn, self._wal_time_us, unit.commit_time_us
                )
                await publisher.publish(unit.messages, mark, unit.is_atomic)
            else:
                if is_due:
                    await self._mark()
                await publisher.publish(unit.messages)
        finally:
            self.in_flight = self.in_flight_bytes = 0
        self.stored, self.stored_lsn = unit.position, unit.wal_lsn
        self._stored_time_us = unit.commit_time_us
        for tell in unit.told:
            tell()
        if carries_mark:
            self._marked()

    async def _mark_if_due(self) -> None:
        publisher = self._publisher
        if publisher.owner_due():
            await publisher.renew_owner()
        # What has not moved since needs no other mark; the source's clock moves while it is heard.
        is_new = self.stored_lsn != self._marked_lsn or self._wal_time_us != self._marked_time_us
        is_asked = self._is_asked and self.stored_lsn > self._asked_lsn
        interval_s = _ASKED_EVERY_S if is_asked else self._mark_interval_s
        due = is_new and publisher.seconds_since_mark >= interval_s
        if due or publisher.position_due() or publisher.messages_since_mark >= _MARK_EVERY_MESSAGES:
            await self._mark()

    @property
    def _is_asked(self) -> bool:
        """Whether somebody waits for a mark. One that was written before it was asked for says nothing of it."""
        return self._asked_lsn >= self._marked_lsn

    async def _mark(self) -> None:
        """Marks what is stored."""
        publisher = self._publisher
        await publisher.mark(self.stored, self.stored_lsn, self._wal_time_us, self._stored_time_us)
        self._marked()

    def _marked(self) -> None:
        self._marked_lsn = self.stored_lsn
        self._marked_time_us = self._wal_time_us
        # Confirmed is only what a stored mark covers, so that a stream that lost its end shows it.
        self._ledger.stored(self.stored_lsn, time.monotonic())
