"""Messages into the stream: fenced, one unit in flight, with marks that outlive every limit.

A term begins with an owner mark. Each message expects that mark to be the last of its
subject, so a former owner's messages, and those of an earlier term that are still under
way, are refused and nothing of them is stored. That is why an answer that never came needs
no resending: the next term writes its own owner mark, reads what stands in the stream, and
goes on after it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError

from bridge.change import Position
from bridge.errors import EpochLost, Fenced, HistoryGone, StreamUnfit, Unreachable
from bridge.growth import Growth, read_counts
from bridge.jetstream import FENCED, JetStream, JetStreamError, StoredMessage
from bridge.mark_schedule import MarkSchedule
from bridge.outgoing import Outgoing, head_of, stored_bytes
from bridge.postgres import Source
from bridge.stream import StreamState
from bridge.tail import Tail, last_change
from bridge.timeline import check_source
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import OwnerMark, PositionMark

MarkT = TypeVar("MarkT", OwnerMark, PositionMark)

OWNER = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
"""This process, in owner marks."""

_UNIT_MESSAGES = 2000
_UNIT_BYTES = 2 * 1024 * 1024


class Publisher:
    """The writer of one term."""

    def __init__(
        self,
        jetstream: JetStream,
        state: StreamState,
        source: Source,
        mark_interval_s: float = 0,
        look_again: Callable[[], Awaitable[Source]] | None = None,
    ) -> None:
        self.decorate: Callable[[Outgoing], Outgoing] | None = None
        """Adds headers to each event, where somebody wants more."""
        self._interval_ms = int(mark_interval_s * 1000)
        self._look_again = look_again
        self._jetstream = jetstream
        self._state = state
        self._source = source
        self._fence = ""
        self._owner_mark = MarkSchedule(state)
        self._position_mark = MarkSchedule(state)
        self._growth = Growth(state)
        self._last_term = 0
        self.term = 0
        self.last_sequence = 0
        """The stream's end, as far as it is known: others store as well."""

    async def begin_term(self) -> None:
        """Writes the owner mark of a new term. The position mark was read before: whoever does not
        belong here must not fence the one who does.

        Raises:
            Fenced: another bridge writes owner marks at the same time.
            EpochLost: the last mark is of another epoch.
        """
        last = await self._jetstream.last(fmt.OWNER_SUBJECT)
        mark = OwnerMark()
        if last is not None:
            mark = _read_mark(last, mark)
            if mark.epoch != self._state.epoch:
                raise _other_epoch(mark.epoch, self._state.epoch)
        self.term = max(mark.term, self._last_term) + 1
        await self._write_owner(last.sequence if last is not None else 0)

    async def write_first_position(self) -> None:
        """The first message of a new stream: nothing is stored yet.

        Only an empty stream takes it, so it can never hide that marks were lost.
        """
        mark = PositionMark(epoch=self._state.epoch, system_id=self._source.system_id, complete=True)
        mark.timeline = self._source.timeline
        mark.interval_ms = self._interval_ms
        head = head_of({"Nats-Expected-Last-Sequence": "0"})
        await self._store([Outgoing(fmt.POSITION_SUBJECT, head, mark.SerializeToString())])

    async def read_mark(self) -> PositionMark:
        """The last position mark.

        Raises:
            HistoryGone: no position mark is left, so nobody knows what is stored.
            EpochLost: the mark is of another epoch or of another Postgres.
        """
        last = await self._jetstream.last(fmt.POSITION_SUBJECT)
        if last is None:
            raise HistoryGone(
                "the stream has no position mark left: what it holds of the source cannot be known",
                "begin a new epoch with: zephyr bridge new-epoch",
            )
        mark = _read_mark(last, PositionMark())
        try:
            self._check_source(mark)
        except EpochLost:
            if self._look_again is None:
                raise
            # Who leads with another slot may have read and marked further since we looked at the source.
            self._source = await self._look_again()
            self._check_source(mark)
        self._position_mark.found(last.sequence)
        self._last_term = mark.term
        return mark

    async def read_tail(self) -> Tail:
        """The checkpoint: the last change in the stream, or where the last position mark says so, that.

        Call it after ``begin_term``: nobody else stores a change any more.

        Raises:
            StreamUnfit, EpochLost: as ``read_mark``.
        """
        mark = await self.read_mark()
        position = Position(mark.commit_lsn, mark.index, mark.complete) if mark.commit_lsn else None
        # A term marks from where it reads before it stores a change: until then there is none, and
        # after the mark stand the rows of a copy, a million perhaps.
        last = await last_change(self._jetstream, self._position_mark.sequence) if mark.wal_lsn else None
        commit_time_us = mark.commit_time
        if last is not None:
            place, commit_time_us = last
            position = Position(place.lsn, place.index, place.count > 0)
        if position is not None:
            # The mark may be older than what was stored last, and a switch of timelines lie between.
            check_source(self._source, mark, position.lsn)
        return Tail(position, mark, commit_time_us)

    async def publish(
        self, messages: Sequence[Outgoing], mark: PositionMark | None = None, is_atomic: bool = False
    ) -> int:
        """Stores events in order, as one unit, and after them a position mark that covers them; with
        ``is_atomic`` all of it or nothing, in which case it is at most ``BATCH_MESSAGES`` with the mark.

        Gives the sequence of the last message.

        Raises:
            Fenced: another bridge owns the stream. Nothing was stored.
            Unreachable: no answer, so this term is over. Any number of them may be stored, in order.
        """
        if self.decorate is not None:
            messages = [self.decorate(message) for message in messages]
        if mark is None:
            return await self._store(list(messages), self._fence)
        last = Outgoing(fmt.POSITION_SUBJECT, "", mark.SerializeToString())
        sequence = await self._store([*messages, last], self._fence, is_atomic)
        self._position_mark.written(sequence)
        return sequence

    @property
    def unit_messages(self) -> int:
        """How many events are stored at once, at most: so few that marks keep their place."""
        limit = self._state.max_msgs
        return min(_UNIT_MESSAGES, max(1, limit // 8)) if limit else _UNIT_MESSAGES

    @property
    def unit_bytes(self) -> int:
        """How many bytes of payload are stored at once, about; a larger event goes by itself."""
        limit = self._state.max_bytes
        return min(_UNIT_BYTES, limit // 8) if limit else _UNIT_BYTES

    async def mark(self, position: Position, wal_lsn: int, wal_time_us: int, commit_time_us: int = 0) -> None:
        """Stores a position mark: all up to ``position`` is stored, the source was read up to ``wal_lsn``."""
        mark = self.position_mark(position, wal_lsn, wal_time_us, commit_time_us)
        sequence = await self._store([Outgoing(fmt.POSITION_SUBJECT, self._fence, mark.SerializeToString())])
        self._position_mark.written(sequence)

    def position_mark(
        self, position: Position, wal_lsn: int, wal_time_us: int, commit_time_us: int = 0
    ) -> PositionMark:
        """The mark that says: all up to ``position`` is stored, the source was read up to ``wal_lsn``."""
        return PositionMark(
            epoch=self._state.epoch,
            system_id=self._source.system_id,
            timeline=self._source.timeline,
            term=self.term,
            commit_lsn=position.lsn,
            index=position.index,
            complete=position.complete,
            wal_lsn=wal_lsn,
            wal_time=wal_time_us,
            commit_time=commit_time_us,
            interval_ms=self._interval_ms,
        )

    async def renew_owner(self) -> None:
        """Writes the owner mark again, so that no limit evicts it; the term stays."""
        await self._write_owner(self._owner_mark.sequence)

    def owner_due(self, incoming: int = 1, incoming_bytes: int = 0) -> bool:
        """Whether the owner mark must be written again before so many messages and bytes are stored."""
        return self._owner_mark.is_due(self.last_sequence, incoming, incoming_bytes)

    def position_due(self, incoming: int = 1, incoming_bytes: int = 0) -> bool:
        """Whether the position mark must be written again before so many messages and bytes are stored."""
        return self._position_mark.is_due(self.last_sequence, incoming, incoming_bytes)

    @property
    def seconds_since_mark(self) -> float:
        """How old the last position mark is."""
        return self._position_mark.age_s

    @property
    def messages_since_mark(self) -> int:
        """How many messages the bridge stored after the last position mark."""
        return self._position_mark.messages_since

    @property
    def look_pause_s(self) -> float:
        """How long until ``look_if_due`` has something to do."""
        return self._growth.pause_s

    async def look_if_due(self) -> None:
        """Looks how far others have written the stream on, where that can evict marks.

        Raises:
            Unreachable: the broker gives no answer, or the stream is gone.
        """
        if self._growth.pause_s > 0:
            return
        try:
            state = await read_counts(self._jetstream)
        except JetStreamError as exc:
            raise Unreachable(exc.message, "see the broker's log; trying again") from exc
        size = self._growth.looked(state)
        self.last_sequence = max(self.last_sequence, state.last_sequence)
        self._position_mark.stored(size, 0)
        self._owner_mark.stored(size, 0)

    async def begin_epoch(self) -> None:
        """Writes the first marks of a new epoch into a stream that holds an older one.

        Its owner mark, of term 0, fences whoever still writes the older epoch. The position mark
        comes last: without it the epoch is not begun, and beginning it again is the mend.
        """
        last = await self._jetstream.last(fmt.OWNER_SUBJECT)
        await self._write_owner(last.sequence if last is not None else 0)
        await self.mark(Position(0, 0), 0, 0)

    async def _write_owner(self, expected: int) -> None:
        mark = OwnerMark(
            epoch=self._state.epoch, term=self.term, owner=OWNER, started_at=time.time_ns() // 1000
        )
        head = head_of({fmt.FENCE_SEQUENCE: str(expected)})
        sequence = await self._store([Outgoing(fmt.OWNER_SUBJECT, head, mark.SerializeToString())])
        self._owner_mark.written(sequence)
        self._fence = head_of({fmt.FENCE_SEQUENCE: str(sequence), fmt.FENCE_SUBJECT: fmt.OWNER_SUBJECT})

    async def _store(self, messages: list[Outgoing], head: str = "", is_atomic: bool = False) -> int:
        try:
            store = self._jetstream.publish_batch if is_atomic else self._jetstream.publish_run
            sequence = await store(messages, head)
        except JetStreamError as exc:
            if exc.error_code == FENCED:
                raise await self._fenced() from exc
            raise Unreachable(exc.message, "see the broker's log; trying again") from exc
        self.last_sequence = sequence
        # Marks count too: an idle source stores nothing else.
        size = stored_bytes(messages)
        self._growth.stored(len(messages), size)
        self._position_mark.stored(size, len(messages))
        self._owner_mark.stored(size, len(messages))
        return sequence

    async def _fenced(self) -> Fenced | Unreachable:
        last = await self._jetstream.last(fmt.OWNER_SUBJECT)
        if last is None:
            # A limit took the mark although it was renewed: others wrote much. A new term writes it anew.
            return Unreachable(
                "the owner mark left the stream; a new term begins", "raise the stream's limits"
            )
        mark = _read_mark(last, OwnerMark())
        if mark.owner == OWNER:
            return Unreachable("the owner mark is of another term of this bridge; a new term begins")
        return Fenced(f"{mark.owner} took over in term {mark.term}", "let it run, or stop it first")

    def _check_source(self, mark: PositionMark) -> None:
        if mark.epoch != self._state.epoch:
            raise _other_epoch(mark.epoch, self._state.epoch)
        check_source(self._source, mark)


def _read_mark(message: StoredMessage, mark: MarkT) -> MarkT:
    try:
        mark.ParseFromString(message.payload)
    except DecodeError as exc:
        raise StreamUnfit(
            f"the mark at sequence {message.sequence} cannot be read", "see who else writes to zephyr._mark.>"
        ) from exc
    return mark


def _other_epoch(found: str, wanted: str) -> EpochLost:
    return EpochLost(
        f"the stream's marks are of epoch {found}, the stream of epoch {wanted}",
        "run: zephyr bridge new-epoch",
    )
