"""Events on their way into the stream, and what became of them. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from protos.events.v1 import stream_format as fmt
from realtime.publish.commands import Message

_NOTHING = Message("", "", b"")


class Item:
    """An event. ``expected`` is the version of the entity that must be there; -1: any. ``field`` names it in errors.

    It is settled when it has a place (``stored_at``) or an ``error``.
    """

    __slots__ = (
        "error",
        "event_id",
        "expected",
        "field",
        "is_repeated",
        "is_settled",
        "message",
        "sequence",
        "size",
        "stored_at",
    )

    def __init__(
        self, sequence: int, message: Message, event_id: str, expected: int = -1, field: str = "event"
    ) -> None:
        self.sequence = sequence
        self.message = message
        self.event_id = event_id
        self.expected = expected
        self.field = field
        self.size = len(message.payload) + len(message.head) + len(message.subject)
        self.is_settled = False
        self.stored_at = 0
        self.is_repeated = False
        self.error: BaseException | None = None

    @classmethod
    def refused(cls, sequence: int, error: BaseException) -> Item:
        """An event that cannot be stored, whatever else is."""
        item = cls(sequence, _NOTHING, "")
        item.fail(error)
        return item

    def store(self, place: int, *, is_repeated: bool = False) -> None:
        """It stands at ``place`` in the stream."""
        self.stored_at = place
        self.is_repeated = is_repeated
        self.is_settled = True

    def fail(self, error: BaseException) -> None:
        """It is not stored, and that is no reason not to go on."""
        self.error = error
        self.is_settled = True

    def outgoing(self) -> Message:
        """The message with what is expected."""
        message = self.message
        if self.expected < 0:
            return message
        head = f"{message.head}{fmt.FENCE_SEQUENCE}: {self.expected}\r\n"
        return Message(message.subject, head, message.payload)


class Flow:
    """One call's events. A ``failure`` ends it: what is not settled by then may be stored or not.

    ``session`` is the producer's; 0: whichever there is. ``notify`` is called when there is something new.
    """

    __slots__ = ("failure", "notify", "session")

    def __init__(self, notify: Callable[[], object], session: int = 0) -> None:
        self.notify = notify
        self.session = session
        self.failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Ends it; the first reason counts."""
        if self.failure is None:
            self.failure = error
        self.notify()


class Unit:
    """Events of a flow that were put in line at once; when it ``is_whole``, all are stored or none."""

    __slots__ = ("flow", "is_whole", "items", "taken")

    def __init__(self, flow: Flow, items: Sequence[Item], *, is_whole: bool = False) -> None:
        self.flow = flow
        self.items = items
        self.is_whole = is_whole
        self.taken = 0


def all_stored(items: Sequence[Item], first: int) -> None:
    """They stand one after the other, from ``first`` on."""
    at = first
    for item in items:
        item.stored_at = at
        item.is_settled = True
        at += 1


def settled_run(pending: deque[Item], most: int) -> list[Item]:
    """Takes what is settled from the front, at most so many."""
    run: list[Item] = []
    while pending and pending[0].is_settled and len(run) < most:
        run.append(pending.popleft())
    return run


def size_of(items: Sequence[Item]) -> int:
    """Their bytes together."""
    size = 0
    for item in items:
        size += item.size
    return size
