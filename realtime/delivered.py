"""What a consumer has delivered and nobody has taken yet: entries in order, checked for gaps.

An ephemeral push consumer without acknowledgements numbers its deliveries. A number that is not
the next one, or a heartbeat that names another last one, is a gap: nothing after it counts.
Flow control bounds what waits: a mark among the messages is answered when all before it was taken.

Source: the NATS documentation, "JetStream consumers" (heartbeats, flow control, ordered consumers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from realtime.entry import Entry, check, header, unchecked_entry
from realtime.lean import Message, Sink

_DELIVERED: Final = b"$JS.ACK."
"""How the reply subject of a stored message begins; the consumer's own words have another, or none."""
_WORDS: Final = 9
"""Of a reply subject without domain and account hash."""
_STALLED: Final = "\r\nNats-Consumer-Stalled:"
_LAST: Final = "\r\nNats-Last-Consumer:"

_SMALL_DIGITS: Final = 9
_TENS: Final = tuple([10**power for power in range(12)])


class Delivered:
    """What came of one consumer, by its sink."""

    __slots__ = (
        "_at",
        "_before",
        "_epoch",
        "_marks",
        "_numbers",
        "_raw",
        "delivered",
        "failure",
        "is_idle",
        "sink",
    )

    def __init__(self, epoch: str, arrived: Callable[[], object]) -> None:
        self.sink = Sink(arrived)
        self._epoch = epoch
        self._raw: list[Message] = []
        self._at = 0
        self._marks: list[str] = []
        self._before = _DELIVERED + b"-"  # no reply subject begins so
        self._numbers = [0, 0, 0]
        self.delivered = 0
        """How many entries were taken."""
        self.is_idle = False
        """Whether the consumer said that it has no more; whoever reads it sets it back."""
        self.failure = ""
        """Why nothing that comes counts any more."""

    def take(self, limit: int) -> list[Entry]:
        """The next entries, at most ``limit``. None are left when there are fewer."""
        entries: list[Entry] = []
        while len(entries) < limit and not self.failure:
            if self._at == len(self._raw):
                self._raw = self.sink.take()
                self._at = 0
                if not self._raw:
                    break
            subject, reply, headers, payload = self._raw[self._at]
            self._at += 1
            # Told by the reply subject: anybody may store a message with a header named Status.
            if reply.startswith(_DELIVERED):
                self._message(entries, subject, reply, headers, payload)
            else:
                self._control(reply, headers)
        check(entries)
        return entries

    @property
    def has_marks(self) -> bool:
        """Whether there is something to answer."""
        return bool(self._marks)

    def marks(self) -> list[str]:
        """The subjects to answer at: all that came before their marks was taken."""
        marks = self._marks
        if marks:
            self._marks = []
        return marks

    def _message(
        self, entries: list[Entry], subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> None:
        if not reply.startswith(self._before):
            self._before = _before(reply)
        numbers = self._numbers
        if not _read_numbers(reply, len(self._before), numbers):
            self.failure = f"the broker's reply subject is not understood: {reply!r}"
            return
        if numbers[1] != self.delivered + 1:
            self.failure = "a delivery was missed"
            return
        self.delivered += 1
        entries.append(unchecked_entry(self._epoch, subject, headers, payload, numbers[0], numbers[2]))

    def _control(self, reply: bytes, headers: bytes) -> None:
        if reply:
            self._mark(reply.decode("utf-8", "replace"))
            return
        text = headers.decode("utf-8", "replace")
        stalled = header(text, _STALLED)
        if stalled:
            self._mark(stalled)
        last = header(text, _LAST) or "0"
        if last != str(self.delivered):
            self.failure = "a delivery was missed"
        elif not stalled:
            self.is_idle = True

    def _mark(self, subject: str) -> None:
        if subject not in self._marks:
            self._marks.append(subject)


def _before(reply: bytes) -> bytes:
    """What stands before the numbers that differ, the same in all of one consumer's reply subjects.

    $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time in
    ns>.<pending>, in newer servers with domain and account hash behind "ACK".
    """
    words = reply.split(b".")
    return b".".join(words[: 5 if len(words) == _WORDS else 7]) + b"."


def _read_numbers(reply: bytes, at: int, numbers: list[int]) -> bool:
    """Reads as many numbers as the list has, each with a dot behind it; whether they are there."""
    end = len(reply)
    # Digit by digit: compiled, that is a small part of what splitting and ``int`` cost for each message.
    for place in range(len(numbers)):
        number, begin, high, fill = 0, at, 0, at + _SMALL_DIGITS
        while at < end:
            digit = reply[at] - 48
            if not 0 <= digit <= 9:
                break
            if at == fill:
                high, number = number, 0  # a large number is multiplied once, and not for each digit
            number = number * 10 + digit
            at += 1
        if at > fill:
            if at - fill >= len(_TENS):
                return False
            tens: int = _TENS[at - fill]
            number += high * tens
        if not begin < at < end or reply[at] != 46:
            return False
        at += 1
        numbers[place] = number
    return True
