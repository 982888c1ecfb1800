"""Feedback on a clock of its own: the server must hear from us whatever the publisher waits for.

The server ends a session that it has not heard from for ``wal_sender_timeout``. A broker that
stalls stops the pump, and with it the reading, but never this task: it waits for nothing but
room in the socket, and for that not longer than the server would wait for us.
What is confirmed is the ledger's word and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from bridge.errors import Unreachable
from bridge.ledger import Ledger

_PATIENCE_S = 60.0
"""How long the socket may be full where the server has no ``wal_sender_timeout``."""


class Confirms(Protocol):
    """The slot, as far as it is told something."""

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        """Tells the source what may be forgotten."""


class Feedback:
    """The confirming of one term."""

    def __init__(
        self, replication: Confirms, ledger: Ledger, interval_s: float, sender_timeout_s: float
    ) -> None:
        self._replication = replication
        self._ledger = ledger
        # Three tries in the time that the server waits; 0 means that it waits for ever.
        self.interval_s = min(interval_s, sender_timeout_s / 3) if sender_timeout_s else interval_s
        self._patience_s = sender_timeout_s or _PATIENCE_S
        self.confirmed_lsn = 0

    async def run(self) -> None:
        """Confirms until it is cancelled.

        Raises:
            Unreachable: the connection broke, or the server takes nothing any more.
        """
        while True:
            lsn = self._ledger.confirmable(time.monotonic())
            try:
                async with asyncio.timeout(self._patience_s):
                    # The answer that is asked for shows a dead connection to the kernel as well.
                    await self._replication.confirm(lsn, reply_requested=True)
            except TimeoutError as exc:
                raise Unreachable(f"Postgres took no feedback for {self._patience_s:g} s") from exc
            self.confirmed_lsn = lsn
            await asyncio.sleep(self.interval_s)
