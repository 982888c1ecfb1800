"""The bridge's life: one term after another.

A fault ends its term, and the next one begins, after a pause, from what stands in the stream;
no fault has a way of its own. Which of them another term may mend, and which end the bridge,
is decided here and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

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
from bridge.heartbeat import Heartbeat
from bridge.mapping import Mapping, load_mapping
from bridge.progress import CopyProgress
from bridge.settings import BridgeSettings
from bridge.status import Status, answer_status
from bridge.tasks import run_until_one_ends
from bridge.term import OpenTerm, Term, TermOpener

log = structlog.get_logger("bridge")

_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 5.0
_SOUND_TERM_S = 1.0
"""After a term that streamed for so long the pause begins anew; shorter ones let it grow."""
_RENEWAL_LOCK_S = 5.0
"""How long the session of the term that lost the epoch may hold the lock."""


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
        self._has_renewed = self._renews = False
        self._pause_s = _PAUSE_MIN_S
        self._streamed_at = 0.0
        self._heartbeat = Heartbeat(settings)
        self._status = Status(settings, self._heartbeat)
        self._opener = TermOpener(settings, self._heartbeat, self._status, on_progress)

    async def run(self) -> None:
        """Runs terms for ever. Until the first one copies or streams, an unreachable server is an error.

        Raises:
            BridgeError: what cannot be mended by trying again.
        """
        await run_until_one_ends(
            self._run_terms(), self._heartbeat.run(), answer_status(self._settings, self._status)
        )

    async def _run_terms(self) -> None:
        while True:
            try:
                if self._renews:
                    await start_new_epoch(self._settings, max(self._settings.lock_wait_s, _RENEWAL_LOCK_S))
                    self._renews = False
                await self._run_term()
            except (EpochLost, HistoryGone) as exc:
                # Once: what a new epoch does not mend is not mended by another one.
                if self._settings.on_epoch_lost != "renew" or self._has_renewed:
                    raise
                self._has_renewed = self._renews = True
                log.warning("the epoch is lost, beginning a new one", cause=exc.message)
                continue
            except MappingMismatch as exc:
                # Before the first term that streams it is the setting up that is wrong.
                if not self._opener.has_opened:
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
            # Both servers were there and fit: a copy that takes hours goes on as a stream does.
            return self._opener.has_opened or self._opener.has_copied or self._status.stood_by
        # The other one leads: to a standby that is no error. It waits again. See docs/decisions/007.
        return self._settings.standby

    async def _run_term(self) -> None:
        async with AsyncExitStack() as stack:
            term = await self._opener.open(stack, self._mapping)
            self._streams(term)
            await term.run()

    def _streams(self, term: OpenTerm) -> None:
        about = term.about
        self._status.streams(about.epoch, about.term, term.pump, term.ledger, term.feedback)
        self._has_renewed = False
        self._streamed_at = time.monotonic()
        self._heartbeat.lead()
        log.info("streaming", slot=about.slot, stream=about.stream, epoch=about.epoch, term=about.term)
        self._on_term(about)
