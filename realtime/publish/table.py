"""The producers that are in use on this server, each with its line. Bounded: who was idle longest is forgotten."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from realtime.errors import LimitExceeded
from realtime.jetstream import StreamReader
from realtime.publish.arrivals import Arrivals
from realtime.publish.broker import Broker
from realtime.publish.line import Line
from realtime.publish.producer import Producer

_MOST = 2000


class Producers:
    """Finds or makes a producer's line. ``run`` owns the lines' tasks."""

    def __init__(self, broker: Broker, reader: StreamReader, arrivals: Arrivals, most: int = _MOST) -> None:
        self._broker = broker
        self._reader = reader
        self._arrivals = arrivals
        self._most = most
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None
                for task in self._running:
                    task.cancel()

    def line(self, producer_id: str) -> Line:
        """The line of a producer.

        Raises:
            LimitExceeded: too many are in use.
        """
        line = self._lines.get(producer_id)
        if line is None:
            if len(self._lines) >= self._most:
                self._forget_one()
            line = self._lines[producer_id] = self._make(producer_id)
        self._lines.move_to_end(producer_id)
        return line

    def anonymous(self) -> Line:
        """A line of nobody's."""
        return self._make("")

    def _make(self, producer_id: str) -> Line:
        producer = Producer(producer_id, self._broker, self._reader, self._arrivals)
        return Line(self._broker, producer, self._start)

    def _start(self, line: Line) -> None:
        assert self._tasks is not None, "events are published while the server runs"
        task = self._tasks.create_task(line.run(), name="publish")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _forget_one(self) -> None:
        for producer_id, line in self._lines.items():
            producer = line.producer
            if line.is_idle and not producer.flows and not producer.lock.locked():
                del self._lines[producer_id]
                return
        raise LimitExceeded(
            f"{self._most} producers publish at the same time", "use fewer, or publish to another server"
        )
