"""The one ordered reader of the stream in a process.

A consumer delivers from a sequence on (``delivery.py``). A gap, a missing heartbeat or a
lost connection ends the session, and the next one begins after the last entry that the hub
took in. Before that the stream is held against what was seen: another epoch, another
message at the same sequence, or messages that retention took away end all subscriptions
with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import OwnerMark
from realtime.delivery import LATE_S, Delivery, deliver
from realtime.entry import Entry
from realtime.errors import CursorReset, RealtimeError, SourceUnavailable
from realtime.hub import Hub
from realtime.jetstream import StreamReader, StreamState
from realtime.memberships import KIND as MEMBERSHIP
from realtime.point import Point
from realtime.publish.arrivals import Arrivals
from realtime.shared_reads import SharedReads

log = structlog.get_logger("source")

_PAUSE_S = 0.5
_PROOF_PAUSE_S = 0.1
_PROOFS_APART_S = 0.005
"""A proof begins so long after the one before: of thousands that open or come back, many share each."""
_OWNER = fmt.OWNER_SUBJECT.rpartition(".")[2]
"""The verb of owner marks: an epoch begins with one, also when it begins in a stream that is there."""
_MEMBERSHIPS = f"{fmt.ROOT}.{fmt.SHARD}.*.{MEMBERSHIP}.*.row"


class Source:
    """Feeds a hub from a stream until it is cancelled."""

    def __init__(
        self, reader: StreamReader, hub: Hub, preload: int = 10_000, arrivals: Arrivals | None = None
    ) -> None:
        self._arrivals = arrivals or Arrivals()
        self._reader = reader
        self._hub = hub
        self._preload = preload
        self._live = asyncio.Event()
        self._target = 0
        self._complaint = ""
        self._delivery: Delivery | None = None
        self._moved = asyncio.Event()
        self._proofs = SharedReads(1, _PROOFS_APART_S)

    @property
    def is_live(self) -> bool:
        """Whether the hub has what the stream had when the session began, and the broker is heard."""
        return self._live.is_set()

    async def became_live(self) -> None:
        """Waits until ``is_live``."""
        await self._live.wait()

    async def proven(self) -> StreamState:
        """Waits for a proof, begun after this call, that what is stored from now on arrives; gives the stream as
        it was then.

        That is an answer of the stream's leader, and the hub having all that the stream had by then. A session
        may be live and its connection dead for seconds: no subscription may be told that it is ready then.
        Who waits at the same time shares the proof.
        """
        return await self._proofs.ask("proof", self._proof)

    async def _proof(self) -> StreamState:
        while True:
            await self.became_live()
            if (state := await self._prove()) is not None:
                return state
            await asyncio.sleep(_PROOF_PAUSE_S)

    async def _prove(self) -> StreamState | None:
        try:
            state = await self._reader.state()
            last = state.last_sequence
            if self._hub.head < last:
                last = await self._reader.last_stored()
        except RealtimeError:
            return None
        while self.is_live and self._hub.head < last:
            await self._moved.wait()
        delivery = self._delivery
        holds = (
            self.is_live
            and state.epoch == self._hub.epoch
            and delivery is not None
            and asyncio.get_running_loop().time() - delivery.heard_at < LATE_S
        )
        return state if holds else None

    def connection_lost(self) -> None:
        """Ends the session at once: the broker forgets a consumer whose reader went away."""
        if self._delivery is not None:
            self._delivery.fail(SourceUnavailable("NATS went away"))

    async def run(self) -> None:
        """Reads session after session; what goes wrong is logged once until it works again."""
        while True:
            try:
                await self._session()
            except RealtimeError as exc:
                self._say(exc.message)
            finally:
                self._live.clear()
                self._hub.is_fed = False
                self._has_moved()
            await asyncio.sleep(_PAUSE_S)

    async def _session(self) -> None:
        state = await self._reader.state()
        await self._agree(state)
        self._target = min(state.last_sequence, await self._reader.last_stored())
        self._note_progress()
        config = {"opt_start_seq": self._hub.head + 1}
        await self._deliver(self._hub.epoch, config, self._take, ends_when_idle=False)

    async def _take(self, entries: list[Entry]) -> bool:
        """Hands over what was delivered; it is never enough. Up to a gap that retention made under the consumer.

        Raises:
            SourceUnavailable: there is such a gap, or a new epoch began in the stream. The next session
                ends the subscriptions.
        """
        newer = _before_newer_epoch(self._hub.epoch, entries)
        if newer is not None:
            await self._take(entries[:newer])
            raise SourceUnavailable("a new epoch began")
        whole = entries[: _before_gap(self._hub.head, entries)]
        if len(whole) < len(entries):
            state = await self._reader.state()
            previous = whole[-1].sequence if whole else self._hub.head
            if state.first_sequence > previous + 1:
                self._hand_over(whole)
                raise SourceUnavailable("retention passed this reader")
        self._hand_over(entries)  # a hole that is younger than the oldest message: it was removed singly
        self._note_progress()
        return False

    def _hand_over(self, entries: list[Entry]) -> None:
        self._hub.take(entries)
        self._arrivals.take(entries)

    def _has_moved(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _note_progress(self) -> None:
        self._has_moved()
        if self._hub.head >= self._target and not self._live.is_set():
            self._live.set()
            self._hub.is_fed = True
            if self._complaint:
                log.info("reading the stream again", sequence=self._hub.head)
            self._complaint = ""

    def _say(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.warning("the stream cannot be read, trying again", cause=complaint)
            self._complaint = complaint

    async def _agree(self, state: StreamState) -> None:
        """Continues where the hub is, or begins anew and says why."""
        hub = self._hub
        if not hub.epoch:
            await self._begin(state)
        elif hub.epoch != state.epoch:
            await self._restart(state, CursorReset("EPOCH_CHANGED", f"a new epoch began: {state.epoch}"))
        elif hub.head > state.last_sequence or await self._is_rewritten(state):
            await self._restart(
                state,
                CursorReset("HISTORY_REWRITTEN", f"the stream no longer holds what it held at {hub.head}"),
            )
        elif state.first_sequence > hub.head + 1:
            text = f"the stream begins at {state.first_sequence}, this server had read up to {hub.head}"
            await self._restart(state, CursorReset("EXPIRED", text))

    async def _is_rewritten(self, state: StreamState) -> bool:
        head, seen = self._hub.head, self._hub.head_timestamp_ns
        if head < state.first_sequence or not seen:
            return False
        found = await self._reader.timestamp_ns(head)
        return found is not None and found != seen

    async def _restart(self, state: StreamState, error: CursorReset) -> None:
        log.warning("every subscription ends", reason=error.reason, cause=error.message)
        await self._begin(state)
        self._hub.reset(error)

    async def _begin(self, state: StreamState) -> None:
        before = max(state.first_sequence, state.last_sequence - self._preload + 1, 1) - 1
        timestamp = await self._reader.timestamp_ns(before) if before else None
        memberships: list[Entry] = []

        async def keep(entries: list[Entry]) -> bool:
            memberships.extend(entry for entry in entries if entry.sequence <= before)
            return False

        if before:
            config = {"deliver_policy": "last_per_subject", "filter_subject": _MEMBERSHIPS}
            await self._deliver(state.epoch, config, keep, ends_when_idle=True)
        self._hub.begin(state.epoch, Point(before, timestamp or 0, 0, 0, 0), memberships)
        self._arrivals.begin(state.epoch, before)

    async def _deliver(
        self,
        epoch: str,
        config: Mapping[str, object],
        take: Callable[[list[Entry]], Awaitable[bool]],
        *,
        ends_when_idle: bool,
    ) -> None:
        self._delivery = Delivery(self._reader.connection, epoch)
        try:
            await deliver(self._reader, self._delivery, config, take, ends_when_idle=ends_when_idle)
        finally:
            self._delivery = None


def _before_gap(after: int, entries: list[Entry]) -> int:
    """How many of the entries join ``after`` and each other without a gap in the sequence."""
    if entries and entries[-1].sequence == after + len(entries):
        return len(entries)  # sequences only grow: there is no room for a gap
    for index, entry in enumerate(entries):
        if entry.sequence != after + index + 1:
            return index
    return len(entries)


def _before_newer_epoch(epoch: str, entries: list[Entry]) -> int | None:
    """How many entries stand before the first mark of an epoch that sorts after this one; None without one.

    An older epoch's marks are history: the stream stays when a new epoch begins in it.
    """
    for index, entry in enumerate(entries):
        if entry.is_internal and entry.verb == _OWNER:
            try:
                mark = OwnerMark.FromString(entry.payload)
            except DecodeError:
                continue
            if mark.epoch > epoch:
                return index
    return None
