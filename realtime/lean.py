"""Messages of NATS cut straight out of the bytes that were read, for the few subscriptions that carry the stream.

nats-py builds an object, a dictionary of headers and a queue's item for each message. Here
a message is four slices in a list; what belongs to nobody here is left to nats-py. ``tap.py``
puts it under a connection; why: docs/decisions/015-frames-are-read-from-the-bytes.md.

Source: the NATS documentation, "Client Protocol" (MSG, HMSG).
"""

from __future__ import annotations

from collections.abc import Callable

Message = tuple[bytes, bytes, bytes, bytes]
"""Subject, reply subject or nothing, headers as they came or nothing, payload."""


class Sink:
    """Where the messages of one subscription go. Whoever asked for them takes them out, and bounds them."""

    __slots__ = ("arrived", "is_open", "messages")

    def __init__(self, arrived: Callable[[], object]) -> None:
        self.arrived = arrived
        """Called after each read that brought something."""
        self.messages: list[Message] = []
        self.is_open = True
        """Whether what comes is kept."""

    def take(self) -> list[Message]:
        """What came since it was last asked."""
        messages, self.messages = self.messages, []
        return messages


class Scanner:
    """Finds the frames of our subscriptions in what was read."""

    __slots__ = ("_touched", "end", "needed", "sinks")

    def __init__(self) -> None:
        self.sinks: dict[bytes, Sink] = {}
        """By subscription id, as it stands in a frame."""
        self.end = 0
        self.needed = 0
        self._touched: list[Sink] = []

    def scan(self, data: bytes, at: int) -> int:
        """Hands over the frames from ``at`` on; gives the place of the first thing that is not ours, or not whole.

        Afterwards ``end`` is where that thing ends; 0 when it is not whole: then it has ``needed`` bytes at least.
        """
        size = len(data)
        last: Sink | None = None
        self.end = 0
        self.needed = 0
        while at < size:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self.needed = size - at + 1
                return at
            body = line_end + 2
            words = data[at:line_end].split()
            count = len(words)
            has_headers = count > 4 and words[0] == b"HMSG"
            if not has_headers and not (3 < count < 6 and words[0] == b"MSG"):
                self.end = body
                return at
            total = _number(words[count - 1])
            head = _number(words[count - 2]) if has_headers else 0
            if total < 0 or head < 0 or head > total or count > 6:
                self.end = body  # nats-py says what is wrong with it
                return at
            end = body + total + 2
            if end > size:
                self.needed = end - at
                return at
            sink = self.sinks.get(words[2])
            if sink is None:
                self.end = end
                return at
            reply = words[3] if count == (6 if has_headers else 5) else b""
            split = body + head
            at = end
            if not sink.is_open:
                continue
            sink.messages.append((words[1], reply, data[body:split], data[split : end - 2]))
            if sink is not last:
                last = sink
                if sink not in self._touched:
                    self._touched.append(sink)
        return at

    def pause(self) -> None:
        """Tells the sinks that were given something."""
        touched = self._touched
        if touched:
            self._touched = []
            for sink in touched:
                sink.arrived()


def _number(word: bytes) -> int:
    """A number of a frame's first line; -1 when it is none."""
    size = len(word)
    if not 0 < size < 10:
        return -1
    number = 0
    # Digit by digit: compiled this is a small part of what ``int`` costs, and it is asked twice a message.
    for at in range(size):
        digit = word[at] - 48
        if not 0 <= digit <= 9:
            return -1
        number = number * 10 + digit
    return number
