"""Frames of the slot to messages in the outbox, each at its place.

Each change takes the next index of its transaction, and so does each domain event that it emitted. One message is always held until the
next change or the commit is seen, because the last one carries the count. What the
checkpoint covers is skipped by (commit LSN, index), so a slot that starts earlier, after a
crash on either side, repeats nothing. No I/O, and nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from bridge.change import Begin, Commit, LogicalMessage, Relation, RowChange, Truncate
from bridge.context import Context, read_context
from bridge.domain_event import DomainEvent
from bridge.draft import Draft
from bridge.encode import Encoder
from bridge.errors import EpochLost, EventRejected
from bridge.outbox import Outbox
from bridge.outgoing import Moment, Outgoing
from bridge.pgoutput import XLOG_DATA_HEAD, XLOG_DATA_KIND, Decoder, Keepalive, parse_frame
from bridge.reject import reject
from bridge.watermarks import Window
from protos.events.v1 import stream_format as fmt

log = structlog.get_logger("bridge")

_REJECTED_SAID = 10


class Sequencer:
    """The place of each change of a term. ``keeps_letters``: rows that cannot become events go to the
    dead letters; else the first of them is an error."""

    def __init__(self, encoder: Encoder, outbox: Outbox, keeps_letters: bool) -> None:
        self._decoder = Decoder()
        self._encoder = encoder
        self._outbox = outbox
        self._keeps_letters = keeps_letters
        self.rejected = 0
        """How many rows and domain events of this term could not become events."""
        self.passed_over = 0
        """How many of our logical messages of this term could not be taken."""
        self.reply_requested = False
        """The source wants to be told how far it is confirmed; whoever tells it takes this back."""
        self.expected_lsn = 0
        """Commit LSN of the last transaction that is stored, when the slot must send it again; 0: it need not."""
        self.window: Window | None = None
        """Asked at each change and commit: rows of a backfill go between two transactions."""
        self.on_message: Callable[[LogicalMessage], None] | None = None
        """Told of each logical message of ours, in its place among the changes; must not block."""
        self._begin: Begin | None = None
        self._moment: Moment | None = None
        self._skips_transaction = False
        self._index = 0
        self._held: Draft | DomainEvent | None = None
        self._held_index = 0
        self._context: Context | None = None
        self._held_context: Context | None = None

    @property
    def open_lsn(self) -> int:
        """Commit LSN of the transaction that is open, 0 for none."""
        return self._begin.commit_lsn if self._begin is not None else 0

    @property
    def open_index(self) -> int:
        """How many messages of the open transaction were read."""
        return self._index if self._begin is not None else 0

    @property
    def held(self) -> int:
        """1 while a message waits for what comes after it, else 0."""
        return 1 if self._held is not None else 0

    def take(self, frames: list[bytes], at: int, end: int) -> int:
        """Takes frames from ``at`` up to ``end`` (exclusive); gives the place of the first that was not taken.

        It ends early when the outbox is full, and after a frame that wants a reply.

        Raises:
            ProtocolError: a frame cannot be read.
            EpochLost, EventRejected, MappingMismatch: see ``_meet``, ``Encoder.encode`` and ``Plan.message``.
        """
        outbox = self._outbox
        while at < end and not outbox.is_full:
            data = frames[at]
            at += 1
            if len(data) > XLOG_DATA_HEAD and data[0] == XLOG_DATA_KIND:
                self._message(data, XLOG_DATA_HEAD)
                continue
            frame = parse_frame(data)
            if not isinstance(frame, Keepalive):
                self._message(frame.message, 0)
                continue
            if self._begin is None:
                outbox.reached(frame.wal_end)
            if frame.reply_requested:
                self.reply_requested = True
                break
        return at

    def _message(self, data: bytes, at: int) -> None:
        message = self._decoder.decode(data, at)
        if isinstance(message, RowChange):
            if not self._skips_transaction:
                self._change(message)
        elif isinstance(message, Begin):
            self._begins(message)
        elif isinstance(message, Commit):
            self._commits(message)
        elif isinstance(message, Truncate):
            if not self._skips_transaction:
                self._change(message)
        elif isinstance(message, LogicalMessage):
            if self.on_message is not None:
                self.on_message(message)
            if message.prefix in (fmt.EVENT_PREFIX, fmt.CONTEXT_PREFIX):
                self._said(message)
        else:
            assert message is None or isinstance(message, Relation)

    def _begins(self, begin: Begin) -> None:
        if self.expected_lsn:
            self._meet(begin)
        self._begin = begin
        self._encoder.commit_lsn = begin.commit_lsn
        self._moment = None
        self._context = self._held_context = None
        self._index = 0
        self._skips_transaction = self._outbox.covers_transaction(begin.commit_lsn)

    def _commits(self, commit: Commit) -> None:
        begin = self._begin
        if self._held is not None and begin is not None:
            self._queue(self._held, begin, self._index)
        self._held = self._begin = None
        self._outbox.reached(commit.end_lsn)
        if self.window is not None and begin is not None:
            self._outbox.insert(self.window.committed(begin), self.window.stored)

    def _meet(self, begin: Begin) -> None:
        """Whether the source is still the one whose last transaction is stored.

        Raises:
            EpochLost: at the place of that transaction another history goes on, as after a restore.
        """
        if begin.commit_lsn > self.expected_lsn:
            raise EpochLost(
                f"Postgres has no transaction at {self.expected_lsn:X}, the last one in the stream: its history is"
                " another one since (restored from a backup?)",
                "run: zephyr bridge new-epoch",
            )
        if begin.commit_lsn == self.expected_lsn:
            self.expected_lsn = 0

    def _change(self, change: RowChange | Truncate) -> None:
        if self.window is not None:
            self.window.change(change)
        for draft in self._encoder.encode(change):
            if self._held is not None and self._begin is not None:
                self._queue(self._held, self._begin, 0)
            self._held, self._held_index, self._held_context = draft, self._index, self._context
            self._index += 1

    def _said(self, message: LogicalMessage) -> None:
        """Takes a domain event, or the transaction's word of itself."""
        begin = self._begin
        if not message.transactional or begin is None:
            # It was not committed with anything, and comes again after each fault: it has no place in the stream.
            self._passed_over("a logical message that is not transactional", "emit it with true", message)
            return
        if self._skips_transaction:
            return
        if message.prefix == fmt.CONTEXT_PREFIX:
            try:
                self._context = read_context(message.content)
            except ValueError as exc:
                self._context = None
                self._passed_over(f"the context of a transaction: {exc}", "correct whoever emits it", message)
            return
        if self._held is not None:
            self._queue(self._held, begin, 0)
        self._held = self._encoder.domain_event(message.content, self._context)
        self._held_index, self._held_context = self._index, self._context
        self._index += 1

    def _passed_over(self, what: str, mend: str, message: LogicalMessage) -> None:
        self.passed_over += 1
        if self.passed_over < _REJECTED_SAID or self.passed_over & (self.passed_over - 1) == 0:
            log.warning(
                "a logical message is passed over",
                cause=what,
                prefix=message.prefix,
                at=f"{message.lsn:X}",
                mend=mend,
                passed_over=self.passed_over,
            )

    def _queue(self, draft: Draft | DomainEvent, begin: Begin, count: int) -> None:
        index = self._held_index
        self._held = None
        if self._outbox.covers(begin.commit_lsn, index):
            return
        moment = self._moment
        if moment is None or moment.context is not self._held_context:
            moment = self._moment = self._encoder.moment(begin, self._held_context)
        try:
            if isinstance(draft, Draft):
                message = draft.plan.message(draft, moment, index, count)
            else:
                self._outbox.has_events = True
                message = draft.message(begin, moment, index, count)
        except EventRejected as error:
            if not self._keeps_letters:
                raise
            message = self._reject(draft, error, begin, moment, index, count)
        self._outbox.add(message, begin.commit_lsn, index, count > 0, begin.commit_time_us)

    def _reject(
        self,
        draft: Draft | DomainEvent,
        error: EventRejected,
        begin: Begin,
        moment: Moment,
        index: int,
        count: int,
    ) -> Outgoing:
        marker, letter = reject(draft, error, begin, moment, index, count)
        self._outbox.add_letter(letter)
        self.rejected += 1
        # The first ones each, then at every doubling: a table of them must not flood the log.
        if self.rejected < _REJECTED_SAID or self.rejected & (self.rejected - 1) == 0:
            log.warning(
                "a row cannot become an event: it went to the dead letters"
                if isinstance(draft, Draft)
                else "a domain event cannot be one: it went to the dead letters",
                cause=error.message,
                id=letter.id,
                mend=error.mend,
                rejected=self.rejected,
            )
        return marker
