"""Events in their order, one batch at the broker at a time.

While a batch is under way, what comes gathers to the next one: a lone event goes at once, and under load
batches grow by themselves. Of an answer that was lost nothing is resent blindly: a producer's last mark
tells whether the batch is stored, and if it is still under way, only one of the two can follow that mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from realtime.errors import (
    RealtimeError,
    SourceUnavailable,
    Unavailable,
    VersionConflict,
)
from realtime.publish.broker import WRONG_LAST, Ack, Broker, NoAnswer, Refused
from realtime.publish.item import Item, Unit, all_stored
from realtime.publish.producer import Producer
from realtime.publish.queue import Queue
from realtime.publish.versions import conflict_of, present_versions

log = structlog.get_logger("publish")

_REFUSALS = 20
_PAUSE_S = 0.25
_PATIENCE_S = 30.0
"""For so long a broker that is away is waited for."""


class _OtherMark(Exception):  # it is caught here, always
    """The producer's last mark is another than was known."""


class Line:
    """The line of one producer, or of one stream without a producer.

    ``start`` begins a task of the owner's. ``put`` never waits: who puts bounds what waits.
    """

    def __init__(self, broker: Broker, producer: Producer, start: Callable[[Line], object]) -> None:
        self._broker = broker
        self.producer = producer
        self._start = start
        self._again = 0
        self.batches = 0
        self.batch_s = 0.0
        """How many batches were stored, and how long the last was under way, in seconds."""
        self._queue = Queue(producer.id)
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._is_running

    def put(self, unit: Unit) -> None:
        """Takes what is to be stored; in time its items are settled, or its flow has failed."""
        self._queue.put(unit)
        if not self._is_running:
            self._is_running = True
            self._start(self)

    async def run(self) -> None:
        """Stores what waits, until nothing does."""
        try:
            while self._queue:
                async with self.producer.lock:
                    await self._store_next()
        finally:
            self._is_running = False
            for unit in self._queue.clear():  # only when it was cancelled
                unit.flow.fail(Unavailable("the server stops", "send it again to another"))

    async def _store_next(self) -> None:
        units: list[Unit] = []
        try:
            await self._be_read(units)
            items = self._queue.next_batch(self.producer.state, units)
            await self._store(items, is_whole=bool(units) and units[-1].is_whole)
            self._again = 0
        except _OtherMark:
            self._put_back(units)
        except asyncio.CancelledError:
            _fail(units, Unavailable("the server stops: it may be stored or not", "send it again to another"))
            raise
        except RealtimeError as exc:
            _fail(units, exc)
        except Exception as exc:  # told to those whose events it concerns, as INTERNAL
            log.error("publishing failed", exc_info=exc)
            _fail(units, exc)
        for flow in {unit.flow for unit in units}:
            flow.notify()

    def _put_back(self, units: list[Unit]) -> None:
        """Another mark stands there: what is left of the batch, and whose it is, is seen anew."""
        self._again += 1
        if self._again > _REFUSALS:
            self._again = 0
            _fail(units, Unavailable("others store as this producer, again and again", "try again"))
        self._queue.put_back(units)

    async def _be_read(self, units: list[Unit]) -> None:
        if not self.producer.is_read:
            try:
                await self.producer.read()
            except RealtimeError:
                units.extend(self._queue.clear())
                raise

    async def _store(self, items: list[Item], *, is_whole: bool) -> None:
        """Stores a batch; each item is settled afterwards.

        Raises:
            _OtherMark: the producer's last mark is another than this batch follows.
            RealtimeError: those that are not settled are not stored, or may be when it is NoAnswer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_S
        refusals = 0
        while items:
            began = loop.time()
            try:
                ack = await self._send(items)
            except Refused as exc:
                if exc.error_code == WRONG_LAST:
                    refusals += 1
                    if refusals > _REFUSALS:
                        raise Unavailable(
                            "others store at the same time, again and again", "try again"
                        ) from exc
                    items = await self._left_after_refusal(items, is_whole)
                    continue
                if not exc.is_temporary or loop.time() > until:
                    raise Unavailable(exc.message, exc.mend) from exc
                await asyncio.sleep(_PAUSE_S)
            except SourceUnavailable as exc:
                if (not self.producer.id and isinstance(exc, NoAnswer)) or loop.time() > until:
                    raise  # without a mark, nothing tells whether they are stored
                await asyncio.sleep(_PAUSE_S)
                await self._look_after_silence()
            else:
                self.batches += 1
                self.batch_s = loop.time() - began
                self._stored(items, ack)
                return

    async def _send(self, items: list[Item]) -> Ack:
        messages = [item.outgoing() for item in items]
        if self.producer.id:
            messages.append(self.producer.mark([item.sequence for item in items]))
        elif len(messages) == 1:
            return await self._broker.publish(messages[0])
        return await self._broker.store(messages)

    def _stored(self, items: list[Item], ack: Ack) -> None:
        first = ack.sequence - len(items) + 1
        if self.producer.id:
            first -= 1
            self.producer.stored([item.sequence for item in items], ack.sequence)
        all_stored(items, first)

    async def _look_after_silence(self) -> None:
        """Whether the producer's last mark is still the one before the batch. The batch may be under way still: then
        it comes before its repetition, which is refused."""
        before = self.producer.state.mark
        try:
            if self.producer.id:
                await self.producer.read()
        except SourceUnavailable:
            return
        if self.producer.state.mark != before:
            raise _OtherMark

    async def _left_after_refusal(self, items: list[Item], is_whole: bool) -> list[Item]:
        """Those whose expectations hold.

        Raises:
            _OtherMark: the producer's last mark is another.
            VersionConflict: of what is stored whole or not at all; with all that conflicts.
        """
        producer = self.producer
        if producer.id:
            before = producer.state.mark
            await producer.read()
            if producer.state.mark != before:
                raise _OtherMark
        expecting = [item for item in items if item.expected >= 0]
        present = await present_versions(producer.reader, [item.message.subject for item in expecting])
        conflicts = []
        for item in expecting:
            last = present[item.message.subject]
            if item.expected != (last.sequence if last is not None else 0):
                conflicts.append((item, conflict_of(item.field, producer.epoch, last)))
        if is_whole and conflicts:
            raise VersionConflict([conflict for _, conflict in conflicts])
        for item, conflict in conflicts:
            item.fail(VersionConflict([conflict]))
        return [item for item in items if not item.is_settled]


def _fail(units: Iterable[Unit], error: BaseException) -> None:
    for unit in units:
        unit.flow.fail(error)
