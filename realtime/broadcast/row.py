"""The broadcasts that wait on one connection: whose are sent next, and when among the stored events.

Stored frames go first. Where they never end, a frame of broadcasts goes behind every fourth. And connections
take turns (``Audience.wake``), a frame each: a thousand that write at once would hold up who has a stored one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from realtime.broadcast.audience import Audience
from realtime.broadcast.box import Box, BroadcastLimits
from realtime.budget import Budget
from realtime.subscriber import Subscriber

_STORED_FRAMES = 4
"""So many go before a frame of broadcasts that waits."""


class Row:
    """Made when the first subscription of a connection asks for broadcasts. ``on_waiting`` wakes its sender;
    ``may_send`` is asked before each frame."""

    def __init__(
        self,
        audience: Audience,
        on_waiting: Callable[[], None],
        may_send: Callable[[Subscriber], bool],
        limits: BroadcastLimits | None = None,
    ) -> None:
        self._audience = audience
        self._on_waiting = on_waiting
        self._may_send = may_send
        self._limits = limits or BroadcastLimits()
        self._budget = Budget(self._limits.max_connection_bytes)
        self._boxes: dict[Subscriber, Box] = {}
        self._waiting: deque[Box] = deque()
        self._is_asleep = False
        self._has_turn = False
        self._is_writing = False
        self._stored = 0

    def open(self, subscriber: Subscriber) -> None:
        """A subscription listens from now on."""
        box = Box(subscriber, self._limits, self._budget, self._note)
        self._boxes[subscriber] = box
        self._audience.join(box)

    def forget(self, subscriber: Subscriber) -> None:
        """A subscription is over; one that never listened too."""
        box = self._boxes.pop(subscriber, None)
        if box is not None:
            self._audience.leave(box)
            box.clear()

    def close(self) -> None:
        """The connection is over."""
        for subscriber in list(self._boxes):
            self.forget(subscriber)

    def wake(self) -> None:
        """It is the connection's turn: a frame may be sent."""
        self._is_asleep = False
        self._has_turn = True
        self._on_waiting()

    def look(self) -> None:
        """What could not be sent a moment ago may be now: there is credit, or a policy's answer. No turn of its own."""
        if self._waiting:
            self._on_waiting()

    def next_frame(self) -> bytes | None:
        """The next frame, encoded; None when none may be sent now."""
        self._stored = 0
        self._wrote()
        if not self._has_turn:
            return None
        for _ in range(len(self._waiting)):
            box = self._waiting.popleft()
            self._audience_agrees(box)
            if box.is_empty or box.subscriber.is_closed:
                box.is_in_row = False
                continue
            if not box.is_due or not self._may_send(box.subscriber):
                self._waiting.append(box)  # looked at again after the next frame
                continue
            frame = box.take_frame()
            if box.is_empty:
                box.is_in_row = False
            else:
                self._waiting.append(box)
            self._has_turn = False
            self._is_writing = True
            return frame
        return None

    def frame_between(self) -> bytes | None:
        """A stored frame was sent: the frame that may follow it before the next one, if any."""
        self._stored += 1
        self._wrote()
        if self._stored < _STORED_FRAMES or not self._waiting:
            return None
        return self.next_frame()

    def _audience_agrees(self, box: Box) -> None:
        if box.subscriber in self._boxes:
            self._audience.agree(box)

    def _note(self, box: Box) -> None:
        box.is_in_row = True
        self._waiting.append(box)
        self._sleep()

    def _wrote(self) -> None:
        """The frame that was taken last is written: only now the connection stands in line again. Many are written
        at the same time, and would all send the next one at once."""
        if self._is_writing:
            self._is_writing = False
            if self._waiting:
                self._sleep()

    def _sleep(self) -> None:
        if not self._is_asleep and not self._is_writing:
            self._is_asleep = True
            self._audience.sleep(self)
