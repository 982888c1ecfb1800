"""What one stream sends: what concerns the whole of it, then the frames of its subscriptions by turns.

There is a task only while there is something to send. Each write is awaited, so a client that does not read
holds back its own stream; what is taken from a mailbox is on its way, and nothing waits between the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from protos.events.v1.stream_pb2 import SubscribeResponse
from realtime.broadcast.row import Row
from realtime.pace import Pace
from realtime.services.access import StreamAccess
from realtime.services.errands import Errands
from realtime.services.turns import Turns
from realtime.subscriber import Subscriber

Context = grpc.aio.ServicerContext[Any, Any]


def _ignore(*_: object) -> None:
    return


class Sender:
    """``on_last`` is called when the last frame of a subscription was sent, ``on_rest`` when nothing is left.
    ``close`` comes last: nothing begins after it."""

    def __init__(
        self,
        context: Context,
        access: StreamAccess | None,
        pace: Pace,
        errands: Errands,
        on_last: Callable[[Subscriber], None],
        on_rest: Callable[[], None],
    ) -> None:
        self.turns = Turns(self.wake)
        self.row: Row | None = None
        """Of broadcasts; made when one of the subscriptions wants them."""
        self.farewell = b""
        """What is sent when nothing else is left, if anything."""
        self._context = context
        self._access = access
        self._pace = pace
        self._errands = errands
        self._on_last = on_last
        self._on_rest = on_rest
        self._announcements: deque[bytes] | None = None  # none until there is one: seldom
        self._sent: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether something is being sent, or waits for the client to read."""
        return self._task is not None

    @property
    def queued(self) -> int:
        """How many subscriptions wait for their turn, and how many frames of the whole stream."""
        return len(self.turns) + len(self._announcements or ())

    def announce(self, frame: SubscribeResponse) -> None:
        """Queues a frame that concerns the whole stream. Not bounded here: who causes them is."""
        if self._announcements is None:
            self._announcements = deque()
        self._announcements.append(frame.SerializeToString())
        self.wake()

    def wake(self) -> None:
        """There is something to send, or nothing more to come."""
        if self._task is None and not self._is_closed:
            self._task = self._errands.create_task(self._send())

    async def sent(self) -> None:
        """Waits until a frame was sent."""
        if self._sent is None:
            self._sent = asyncio.Event()
        await self._sent.wait()

    def close(self) -> None:
        """Begins nothing any more, and calls nobody."""
        self._is_closed = True
        self.turns.close()
        if self.row is not None:
            self.row.close()
        self._on_last = self._on_rest = _ignore

    async def _send(self) -> None:
        """Each subscription that has something gets one frame in its turn, until none has."""
        turns, access, pace = self.turns, self._access, self._pace
        try:
            while True:
                while self._announcements:
                    await self._write(self._announcements.popleft())
                subscriber = turns.next()
                if subscriber is None:
                    if self.row is not None and (broadcasts := self.row.next_frame()) is not None:
                        await self._context.write(broadcasts)
                        continue
                    break
                if access is not None and not access.lets_pass(subscriber):
                    turns.skip(subscriber)
                    continue
                frame = subscriber.take_frame()
                if subscriber.is_live:
                    pace.begin_live()
                    try:
                        await self._context.write(frame)
                    finally:
                        pace.end_live()
                else:
                    await self._context.write(frame)
                turns.sent(subscriber, len(frame))
                self._note_sent()
                if subscriber.is_closed and not subscriber.has_frames:
                    self._on_last(subscriber)
                if self.row is not None and (between := self.row.frame_between()) is not None:
                    await self._context.write(between)
            self._announcements = None
            if self.farewell:
                farewell, self.farewell = self.farewell, b""
                await self._write(farewell)
            self._on_rest()
        finally:
            self._task = None

    async def _write(self, frame: bytes) -> None:
        await self._context.write(frame)
        self._note_sent()

    def _note_sent(self) -> None:
        if self._sent is not None:
            self._sent.set()
            self._sent = None
