"""The fan-out: each event to the subscriptions that want it, waiting for none.

Entries are held until their transaction is whole (a large one goes out in fragments), then
released together: into the ring, and into each lane whose filter has a key that fits. Who is
too far behind in a lane leaves the live edge on the spot. Nothing here awaits, so a check
and what follows from it cannot be torn apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.events.v1.mark_pb2 import PositionMark
from protos.events.v1.stream_pb2 import FellBehind, SourcePosition
from realtime.entry import Entry
from realtime.errors import CursorReset
from realtime.filters import Filter
from realtime.history import History
from realtime.index import Index
from realtime.lane import Lane, LaneKey
from realtime.memberships import KIND as MEMBERSHIP
from realtime.memberships import Memberships
from realtime.point import ORIGIN, Point
from realtime.subscriber import Subscriber

STALLED_AFTER_S = 15.0
"""An idle source writes a mark every two seconds, and each term begins with one; after so long without one it
is said to be stalled."""


_HELD_NS = 2_000_000_000
"""For so long, by the broker's clock, events of others wait for a transaction that stands before them to be whole."""


_SILENT_INTERVALS = 3
"""A source is silent for so many of the intervals in which it marks where it is, before it is stalled."""


_SIGNS_OF_LIFE = ("position", "snapshot", "backfill")
"""Marks that the bridge writes when it has read something of the source: a copy takes long, and has its own."""


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Bounds of the ring, and of the transactions that are shown whole."""

    ring_entries: int = 65_536
    ring_bytes: int = 64 * 1024 * 1024
    whole_transaction_events: int = 1000
    whole_transaction_bytes: int = 32 * 1024 * 1024
    held_entries: int = 16_384
    """What may be held back with a transaction that is open: the messages of others are no part of it."""


class Hub:
    """One process's view of the stream, and who listens to it.

    ``position`` is the point up to which everything was released; ``head`` the sequence of
    the newest entry taken in, which may belong to a transaction that is not whole yet.
    """

    def __init__(self, limits: HubLimits | None = None) -> None:
        self._limits = limits or HubLimits()
        self.epoch = ""
        self.position = ORIGIN
        self.head = ORIGIN.sequence
        self.head_timestamp_ns = 0
        self.source = SourcePosition()
        self.system_id = ""
        """Of the Postgres that the last position mark speaks of; empty before the first."""
        self._heard_at = time.monotonic()
        self._stalled_after_s = STALLED_AFTER_S
        self.is_fed = True
        """Whether its reader has what the stream has; said by the reader."""
        self.history = History(ORIGIN, self._limits.ring_entries, self._limits.ring_bytes)
        self.memberships = Memberships()
        self._index: Index[Lane] = Index()
        self._lanes: dict[LaneKey, Lane] = {}
        self._woken: dict[Lane, None] = {}
        self._filled: dict[Lane, None] = {}
        """Lanes that were given something since the last sweep, or hold it still."""
        self._swept = self._swept_bytes = 0
        self._held: list[Entry] = []
        self._held_bytes = self._held_changes = 0
        self._is_open = False
        self._moved: asyncio.Event | None = None
        self._reset: asyncio.Future[CursorReset] | None = None

    def begin(self, epoch: str, start: Point, memberships: Iterable[Entry] = ()) -> None:
        """Begins at ``start`` with an empty ring, in a (new) epoch. Who listens stays where it was."""
        for lane in list(self._lanes.values()):
            for subscriber in list(lane.members):
                self.detach(subscriber)
        self.epoch = epoch
        self.position = start
        self.head = start.sequence
        self.head_timestamp_ns = start.timestamp_ns
        self.history = History(start, self._limits.ring_entries, self._limits.ring_bytes)
        self.memberships = Memberships()
        self.system_id = ""
        self.source = SourcePosition()  # a place in another source's log says nothing of this one's
        for entry in memberships:
            self.memberships.begin((entry,))
            self.memberships.end((entry,))
        self._swept = self._swept_bytes = 0
        self._drop_held()
        self._wake()

    def reset(self, error: CursorReset) -> None:
        """Ends every subscription: what follows does not continue what they saw."""
        self._drop_held()
        if self._reset is not None and not self._reset.done():
            self._reset.set_result(error)
        self._reset = None

    def reset_signal(self) -> asyncio.Future[CursorReset]:
        """Done, with the reason, once the subscriptions of now must end. Shared: nobody cancels it."""
        if self._reset is None:
            self._reset = asyncio.get_running_loop().create_future()
        return self._reset

    def take(self, entries: Iterable[Entry]) -> None:
        """Takes in the next entries of the stream, in order."""
        limits = self._limits
        for entry in entries:
            self._held.append(entry)
            self._held_bytes += len(entry.frame)
            self.head = entry.sequence
            self.head_timestamp_ns = entry.timestamp_ns
            if entry.commit is not None:
                self._is_open = entry.commit.count == 0
                self._held_changes += 1
            elif entry.stands_alone:
                self._is_open = False
            if not self._is_open and len(self._held) == 1 and not _is_of_membership(entry):
                # A transaction of one, as nearly all are: nothing to hold.
                self._held.clear()
                self._held_bytes = self._held_changes = 0
                self.position = self._pass_on(entry, self.position)
            elif (
                not self._is_open
                or self._held_changes > limits.whole_transaction_events
                or len(self._held) > limits.held_entries
                or self._held_bytes > limits.whole_transaction_bytes
                or (entry.commit is None and self._waits_for_a_bridge(entry))
            ):
                self._release()
        if self._woken:
            woken, self._woken = self._woken, {}
            self._filled.update(woken)
            for lane in woken:
                lane.wake()
        self._sweep()
        self._wake()

    def _waits_for_a_bridge(self, entry: Entry) -> bool:
        """Whether somebody published an event long after a transaction began that is still not whole: the bridge
        may be away, and what others publish must not wait for it."""
        return entry.subject is not None and entry.timestamp_ns - self._held[0].timestamp_ns > _HELD_NS

    def attach(self, subscriber: Subscriber) -> None:
        """Puts a subscription that has examined everything up to ``position`` on the live edge."""
        own, here = subscriber.examined, self.position
        assert (own.sequence, own.stored, own.internal) == (here.sequence, here.stored, here.internal)
        key = subscriber.lane_key
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self._position)
            self._index.add(lane.filter, lane)
        subscriber.join(lane)

    def detach(self, subscriber: Subscriber) -> None:
        """Takes a subscription off the live edge, if it is there."""
        if subscriber.is_live:
            subscriber.leave()
            self._drop_if_empty(subscriber)

    def narrow(self, subscriber: Subscriber, wanted: Filter) -> None:
        """Gives a subscription a filter that admits less than its own, without a gap or a repetition: it moves
        to another lane at the same point, or goes on with its catch-up."""
        was_live = subscriber.is_live
        self.detach(subscriber)
        subscriber.narrow(wanted, self.memberships)
        if not was_live or subscriber.is_closed:
            return
        if subscriber.examined == self.position:
            self.attach(subscriber)
        else:
            subscriber.say(FellBehind(reason="scope changed"), in_turn=False)

    def _drop_if_empty(self, subscriber: Subscriber) -> None:
        lane = self._lanes[subscriber.lane_key]
        if lane.members:
            return
        del self._lanes[lane.key]
        self._filled.pop(lane, None)
        self._index.remove(lane.filter, lane)

    async def reached(self, sequence: int) -> None:
        """Waits until everything up to ``sequence`` was released."""
        while self.position.sequence < sequence:
            await self.moved()

    async def moved(self) -> None:
        """Waits until something is released, or another history begins."""
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    @property
    def live_subscriptions(self) -> int:
        """How many subscriptions are at the live edge."""
        return sum(len(lane.members) for lane in self._lanes.values())

    @property
    def lanes(self) -> int:
        """How many different filters they have."""
        return len(self._lanes)

    def source_position(self) -> SourcePosition:
        """Where the source is, and whether it was heard lately."""
        position = SourcePosition()
        position.CopyFrom(self.source)
        position.stalled = not self.is_fed or time.monotonic() - self._heard_at > self._stalled_after_s
        return position

    def _position(self) -> Point:
        return self.position

    def _release(self) -> None:
        held, self._held = self._held, []
        self._held_bytes = self._held_changes = 0
        self.memberships.begin(held)
        before = self.position
        for entry in held:
            before = self._pass_on(entry, before)
        self.memberships.end(held)
        self.position = before
        self._sweep()

    def _pass_on(self, entry: Entry, before: Point) -> Point:
        """Into the ring and the lanes; gives the point after it."""
        if entry.sequence > before.sequence + 1:
            self._tell_gap(before.sequence, entry.sequence - 1)
        point = before.after(entry)
        self.history.append(entry, point)
        subject = entry.subject
        if subject is None:
            self._read_mark(entry)
            return point
        if entry.is_truncation:
            lanes = self._index.of_kind(subject.kind)
        else:
            lanes = self._index.find(subject, self.memberships)
        for lane in lanes:
            if lane.is_selective and not self._admits(lane, entry):
                continue
            if not lane.has_room(len(entry.frame)):
                for slow in lane.make_room(len(entry.frame)):
                    slow.fall_behind("mailbox full", self.source_position())
                    self._drop_if_empty(slow)
            if lane.members:
                lane.append(entry, point)
                self._woken[lane] = None
        return point

    def _sweep(self) -> None:
        """Who is behind the ring is served from the stream, now and then looked for: so the lanes keep alive no
        more than a quarter of the ring beyond it, however many they are."""
        history, limits = self.history, self._limits
        if (
            history.dropped - self._swept < limits.ring_entries // 4
            and history.dropped_bytes - self._swept_bytes < limits.ring_bytes // 4
        ):
            return
        self._swept, self._swept_bytes = history.dropped, history.dropped_bytes
        # Those alone that hold something: most of a hundred thousand never did.
        filled, self._filled = self._filled, {}
        filled.update(self._woken)
        for lane in filled:
            for slow in lane.overtaken(history.floor.sequence):
                slow.fall_behind("mailbox full", self.source_position())
                self._drop_if_empty(slow)
            lane.trim()
            if lane.end > lane.base:
                self._filled[lane] = None

    def _tell_gap(self, after: int, through: int) -> None:
        """Messages were removed singly: that concerns everybody, and is rare."""
        for lane in list(self._lanes.values()):
            for member in list(lane.members):
                if not member.gap(after, through):
                    member.fall_behind("mailbox full")
                    self._drop_if_empty(member)

    def _admits(self, lane: Lane, entry: Entry) -> bool:
        """What the lane's filter says beside its keys; one that fails ends the lane's subscriptions alone."""
        try:
            return lane.filter.admits(entry)
        except Exception as exc:  # noqa: BLE001  # handed on: each of them raises it
            for member in list(lane.members):
                member.fail(exc)
                self._drop_if_empty(member)
            return False

    def _read_mark(self, entry: Entry) -> None:
        if entry.verb in _SIGNS_OF_LIFE:
            self._heard(entry)
        if entry.verb != "position":
            return
        try:
            mark = PositionMark.FromString(entry.payload)
        except DecodeError:
            return  # The bridge refuses to go on over such a mark; here it only says nothing new.
        if mark.epoch and mark.epoch != self.epoch:
            return  # An epoch that begins in a stream that was there leaves the older one's marks in it.
        self.system_id = mark.system_id
        self.source = SourcePosition(
            wal_lsn=mark.wal_lsn,
            wal_time=mark.wal_time,
            commit_lsn=mark.commit_lsn,
            commit_time=mark.commit_time,
        )
        self._stalled_after_s = max(STALLED_AFTER_S, _SILENT_INTERVALS * mark.interval_ms / 1000)

    def _heard(self, entry: Entry) -> None:
        # What is read back was said when it was stored; what is heard live needs no clock of another machine.
        age_s = 0.0 if self.is_fed else max(0.0, time.time() - entry.timestamp_ns / 1e9)
        self._heard_at = time.monotonic() - age_s

    def _drop_held(self) -> None:
        self._held = []
        self._held_bytes = self._held_changes = 0
        self._is_open = False

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None


def _is_of_membership(entry: Entry) -> bool:
    return entry.subject is not None and entry.subject.kind == MEMBERSHIP
