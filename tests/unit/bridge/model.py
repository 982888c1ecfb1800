"""A broker and a source that are values: pump and publisher run on them without a socket.

``FakeBroker`` keeps JetStream's rules that the format stands on: expected last sequences, the
fence, the last message of a subject. ``FakeSource`` sends the WAL's frames from where the slot
was confirmed, as a walsender does. Both fail where a test says.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from bridge.change import (
    Begin,
    Column,
    Commit,
    LogicalMessage,
    Message,
    Operation,
    Relation,
    RowChange,
    Value,
)
from bridge.encode import Encoder
from bridge.errors import Unreachable
from bridge.fit import FittedColumn, FittedMapping, FittedTable
from bridge.jetstream import FENCED, JetStream, JetStreamError, StoredMessage
from bridge.mapping import load_mapping
from bridge.outgoing import Outgoing, headers_of
from bridge.postgres import Source
from bridge.stream import StreamState
from protos.events.v1 import stream_format as fmt
from protos.events.v1.publish_pb2 import NewEvent
from tests.unit.bridge.wal_bytes import keepalive, message, xlog_data

EPOCH, SYSTEM = "0190a0000000000000aa", "7300000000000000001"
EXPECTED, OF = "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"
EMPTY = "Nats-Expected-Last-Sequence"
TEXT_OID = 25

OK = "ok"
LOST = "lost"
"""Stored, and the answer does not arrive."""
LATE = "late"
"""Not answered, and stored later if the broker still takes it then."""
NEVER = "never"
"""It does not arrive at all."""


class FakeBroker(JetStream):
    """A stream in memory; ``fate`` says of each publish what becomes of it."""

    def __init__(self, max_msgs: int = 0) -> None:
        self.stream = "ZEPHYR"
        self.timeout_s = 1
        self.max_msgs = max_msgs
        self.messages: list[StoredMessage] = []
        self.everything: list[StoredMessage] = []
        self.late: list[tuple[str, bytes, dict[str, str]]] = []
        self.late_batches: list[list[tuple[str, bytes, dict[str, str]]]] = []
        self.fate: Callable[[str], str] = lambda _subject: OK
        self.refusals = 0

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        fate = self.fate(subject)
        if fate == OK:
            return self.store(subject, payload, headers)
        if fate == LOST:
            self.store(subject, payload, headers)
        elif fate == LATE:
            self.late.append((subject, payload, headers))
        raise Unreachable("no answer")

    async def publish_batch(self, messages: Sequence[Outgoing], head: str = "") -> int:
        """All of them or none, as their one fate is."""
        given = [(each.subject, each.payload, headers_of(each.head + head)) for each in messages]
        fate = self.fate(given[-1][0])
        if fate in (OK, LOST):
            sequence = [self.store(*each) for each in given][-1]
            if fate == OK:
                return sequence
        elif fate == LATE:
            self.late_batches.append(given)
        raise Unreachable("no answer")

    async def api(self, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        assert request == f"STREAM.INFO.{self.stream}"
        first = self.messages[0].sequence if self.messages else 0
        state = {"first_seq": first, "last_seq": len(self.everything), "messages": len(self.messages)}
        return {"state": state | {"bytes": sum(len(each.payload) for each in self.messages)}}

    async def get(self, query: dict[str, Any]) -> StoredMessage | None:
        if "last_by_subj" in query:
            return self._last(query["last_by_subj"])
        if "next_by_subj" not in query:
            return next((each for each in self.messages if each.sequence == query["seq"]), None)
        pattern = query["next_by_subj"].replace(">", "*")
        for found in self.messages:
            if found.sequence >= query["seq"] and fnmatch.fnmatchcase(found.subject, pattern):
                return found
        return None

    def store(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """As the broker does: checks what is expected, stores, forgets what is over the limit."""
        if EMPTY in headers and int(headers[EMPTY]) != len(self.everything):
            raise self._wrong()
        if EXPECTED in headers:
            last = self._last(headers.get(OF, subject))
            if int(headers[EXPECTED]) != (last.sequence if last is not None else 0):
                raise self._wrong()
        stored = StoredMessage(len(self.everything) + 1, subject, headers, payload)
        self.everything.append(stored)
        self.messages.append(stored)
        if self.max_msgs:
            del self.messages[: -self.max_msgs]
        return stored.sequence

    def deliver_late(self) -> None:
        """What was under way arrives at last."""
        late, self.late = self.late, []
        for subject, payload, headers in late:
            try:
                self.store(subject, payload, headers)
            except JetStreamError as exc:
                assert exc.error_code == FENCED  # noqa: PT017 - both ends are fine
        batches, self.late_batches = self.late_batches, []
        for batch in batches:
            try:
                for subject, payload, headers in batch:
                    self.store(subject, payload, headers)
            except JetStreamError as exc:
                assert exc.error_code == FENCED  # noqa: PT017 - all of them are refused by the same fence

    @property
    def events(self) -> list[StoredMessage]:
        """Those of the bridge."""
        return [
            each
            for each in self.everything
            if each.subject.startswith("zephyr.0.") and fmt.COMMIT in each.headers
        ]

    def _last(self, subject: str) -> StoredMessage | None:
        return next(
            (each for each in reversed(self.messages) if fnmatch.fnmatchcase(each.subject, subject)), None
        )

    def _wrong(self) -> JetStreamError:
        self.refusals += 1
        return JetStreamError("a message", FENCED, "wrong last sequence")


class SourceEnded(Unreachable):
    """The frames are at their end: the test's own end of a term."""


class FakeSource:
    """The WAL of a slot: transactions by their commits; ``confirmed`` is what was confirmed."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.wal_end = 0x100
        self.transactions: list[tuple[Begin, list[Message], Commit]] = []
        self.known_up_to: Callable[[], int] = lambda: 2**64
        self._reads: list[list[bytes]] = []

    def commit(self, changes: Sequence[Message]) -> tuple[Begin, list[Message], Commit]:
        """One transaction more. Its commit record has a length like a real one's."""
        lsn = self.wal_end + 0x20 * (len(changes) + 1)
        self.wal_end = lsn + 0x30
        made = (Begin(lsn, lsn, len(self.transactions)), list(changes), Commit(lsn, self.wal_end, lsn))
        self.transactions.append(made)
        return made

    def start(self, at: int, split: Callable[[list[bytes]], list[list[bytes]]]) -> None:
        """Streams from a confirmed position, in reads as ``split`` makes them."""
        assert at <= self.confirmed
        frames = [xlog_data(message(relation)) for relation in (NOTES,)]
        for begin, changes, commit in self.transactions:
            if commit.end_lsn > at:
                frames += [
                    xlog_data(message(each), commit.end_lsn, begin.commit_time_us)
                    for each in (begin, *changes, commit)
                ]
                frames.append(keepalive(commit.end_lsn, begin.commit_time_us, reply_requested=True))
        frames.append(keepalive(self.wal_end, self.wal_end, reply_requested=True))
        self._reads = split(frames)

    async def read(self, timeout_s: float) -> list[bytes]:
        if not self._reads:
            raise SourceEnded("the end of the frames")
        return self._reads.pop(0)

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        # The server takes 0 as a sign of life, and never goes back.
        assert lsn <= self.known_up_to(), "more was confirmed than is stored"
        self.confirmed = max(self.confirmed, lsn)


def _fitted() -> FittedMapping:
    table = load_mapping().tables["public.notes"]
    columns = {name: FittedColumn(name, TEXT_OID, TEXT_OID, "text") for name in table.used_columns}
    for name, oid in (("version", 20), ("created_at", 1184), ("updated_at", 1184), ("metadata", 3802)):
        columns[name] = FittedColumn(name, oid, oid, "?")
    return FittedMapping({table.name: FittedTable(table, 1, columns)})


FITTED = _fitted()
_NOTE_COLUMNS = FITTED.tables["public.notes"].columns
NOTES = Relation(
    1, "public", "notes", "f", tuple(Column(name, c.type_oid, -1, True) for name, c in _NOTE_COLUMNS.items())
)


def row(note: str, workspace: str = "w1", title: str = "t") -> tuple[Value, ...]:
    given: dict[str, Value] = {"id": note, "workspace_id": workspace, "title": title, "version": "1"}
    return tuple(given.get(name) for name in _NOTE_COLUMNS)


def insert(note: str) -> RowChange:
    return RowChange(Operation.INSERT, NOTES, None, row(note))


def move(note: str) -> RowChange:
    """Two events of one change."""
    return RowChange(Operation.UPDATE, NOTES, row(note), row(note, "w2"))


def domain_event(note: str, verb: str = "shared") -> LogicalMessage:
    """A domain event as an application emits it."""
    said = NewEvent(workspace_id="w1", kind="note", entity_id=note, verb=verb)
    return LogicalMessage(fmt.EVENT_PREFIX, said.SerializeToString(), 1, True)


def make_encoder(max_event_bytes: int = 1 << 20) -> Encoder:
    return Encoder(FITTED, SYSTEM, "app", EPOCH, max_event_bytes)


def source_of(wal_end: int, system_id: str = SYSTEM, timeline: int = 1) -> Source:
    return Source(system_id, timeline, wal_end, "app")


def state_of(broker: FakeBroker, epoch: str = EPOCH) -> StreamState:
    first = broker.messages[0].sequence if broker.messages else 0
    return StreamState(epoch, first, len(broker.everything), 0, 0, broker.max_msgs)
