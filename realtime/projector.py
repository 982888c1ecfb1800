"""Stream → cache: keeps the latest state of notes and users.

A batch of entries is folded to one write an entity, the last one, and goes to the cache
together with the watermark: where the batch ends. Nothing is dropped: while the cache
cannot be reached, ``apply`` waits and tries again, and what it holds back is one batch.

A cache that was lost meanwhile is not filled from the middle: ``apply`` says so, and the
caller begins anew where ``start`` says.

    while running:
        after = await projector.start()            # None: from the earliest event
        try: subscribe to projector.kinds after it
        except CursorReset: await projector.reset(); continue
        for each batch: if not await projector.apply(epoch, entries, through): break
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.cache.protocol import Cache, Clear, Forget, Put, Write
from realtime.cursor import Cursor
from realtime.entry import Entry
from realtime.errors import StoreUnavailable

KINDS = ("note", "user")

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that grows from ``first_s`` to ``most_s`` seconds."""

    first_s: float = 0.1
    factor: float = 2.0
    most_s: float = 5.0

    def pauses(self) -> Iterator[float]:
        """The pauses in seconds, without end."""
        pause = self.first_s
        while True:
            yield pause
            pause = min(pause * self.factor, self.most_s)


class Projector:
    """Writes what the stream says of ``kinds`` to a cache.

    ``malformed`` counts the entries whose payload was no event of their kind; the entity
    is then forgotten, so that reads ask Postgres. ``is_down`` says that the cache cannot be reached.
    """

    def __init__(self, cache: Cache, backoff: Backoff | None = None) -> None:
        self.kinds = KINDS
        self.malformed = 0
        self.is_down = False
        self._cache = cache
        self._backoff = backoff or Backoff()
        self._position: Cursor | None = None
        self._moved: asyncio.Event | None = None
        self.hurry: Callable[[], None] = _nothing
        """Has what is pending applied at once, and the watermark moved on where nothing is."""

    @property
    def watermark(self) -> Cursor | None:
        """Up to where this one brought the cache; None before it began."""
        return self._position

    async def reached(self, epoch: str, sequence: int) -> None:
        """Waits until the cache has everything up to a place of the stream."""
        while True:
            at = self._position
            if at is not None and at.epoch == epoch and at.sequence >= sequence:
                return
            if self._moved is None:
                self._moved = asyncio.Event()
            moved = self._moved
            self.hurry()
            await moved.wait()

    async def start(self) -> Cursor | None:
        """Where to go on after: the cache's watermark; None for the earliest event.

        Waits until the cache can be reached.
        """
        self._position = await self._persist(self._cache.watermark)
        return self._position

    async def reset(self) -> None:
        """Forgets the cache's states, as the stream cannot be read on from where ``start`` said.

        Does nothing when another projector did it before. Call ``start`` next.
        """
        await self._persist(lambda: self._cache.reset(self._position))

    async def apply(self, epoch: str, entries: Sequence[Entry], through: Cursor) -> bool:
        """Writes the entries after the last call's ``through`` (or ``start``), up to this one.

        Waits while the cache cannot be reached. False when the cache was lost since: leave
        the subscription and begin anew with ``start``.
        """
        writes = self.fold(epoch, entries)
        after = self._position
        kept = await self._persist(lambda: self._cache.apply(writes, after, through))
        if kept:
            self._position = through
            if self._moved is not None:
                self._moved.set()
                self._moved = None
        else:
            _log.warning("the cache was lost: it is built anew", after=after.sequence if after else 0)
        return kept

    def fold(self, epoch: str, entries: Sequence[Entry]) -> list[Write]:
        """The writes that the entries come to: one an entity, and one a truncated kind."""
        states: dict[tuple[str, str], Put | Forget] = {}
        clears: dict[str, Clear] = {}
        for entry in entries:
            subject = entry.subject
            if subject is None or subject.suffix != "row" or subject.kind not in self.kinds:
                continue
            cursor = Cursor(epoch, entry.sequence, entry.timestamp_ns)
            key = (subject.kind, subject.entity)
            if entry.verb == fmt.TRUNCATED:
                clears[subject.kind] = Clear(subject.kind, cursor)
                states = {known: write for known, write in states.items() if known[0] != subject.kind}
            elif entry.verb == fmt.DELETED:
                states[key] = Put(*key, cursor, None)
            elif entry.verb == fmt.REJECTED:
                # What the row is now is not in the stream: reads ask Postgres.
                if subject.entity != fmt.NONE:
                    states[key] = Forget(*key, cursor)
            elif entry.verb in fmt.STATES:
                model = self._model(subject, entry)
                states[key] = Forget(*key, cursor) if model is None else Put(*key, cursor, model)
        return [*clears.values(), *states.values()]

    def _model(self, subject: fmt.Subject, entry: Entry) -> bytes | None:
        """The bytes of the model in the payload; None, logged and counted, when it is malformed."""
        try:
            event = Event.FromString(entry.payload)
        except DecodeError:
            event = Event()
        data = event.WhichOneof("data")
        model: Note | User = event.note if subject.kind == "note" else event.user
        if data == subject.kind and model.id == subject.entity:
            return model.SerializeToString(deterministic=True)
        self.malformed += 1
        _log.error(
            "a malformed payload is not cached",
            subject=str(subject),
            sequence=entry.sequence,
            data=data,
            malformed=self.malformed,
        )
        return None

    async def _persist(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Tries until the cache can be reached; an outage is logged once."""
        pauses = self._backoff.pauses()
        while True:
            try:
                result = await operation()
            except StoreUnavailable as exc:
                if not self.is_down:
                    self.is_down = True
                    _log.warning("the cache waits for its store", cause=exc.message, mend=exc.mend)
                await asyncio.sleep(next(pauses))
                continue
            if self.is_down:
                self.is_down = False
                _log.info("the cache's store is back")
            return result


def _nothing() -> None:
    """Nobody runs it."""
