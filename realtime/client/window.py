"""How much a server may send before the client is done with what it has.

Both sides count alike, or the window would shrink or grow with every frame: events and items of a snapshot,
and the bytes of their entries in the frame as they stand there.
"""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1 import stream_pb2 as pb
from realtime.errors import ArgumentInvalid

_TAGS = {
    "events": pb.SubscribeResponse.EVENTS_FIELD_NUMBER << 3 | 2,
    "snapshot_page": pb.SubscribeResponse.SNAPSHOT_PAGE_FIELD_NUMBER << 3 | 2,
}
_FLAG_BYTES = 2
"""``transaction_open`` or ``corrections`` in the message with the entries, where it is set."""


@dataclass(frozen=True, slots=True)
class CreditWindow:
    """Events and bytes that may be on their way or waiting here. One event may be larger than all of it.

    Raises:
        ArgumentInvalid: one of them is not positive.
    """

    messages: int = 8192
    bytes: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, amount in (("messages", self.messages), ("bytes", self.bytes)):
            if amount <= 0:
                raise ArgumentInvalid(f"credit.{name}", f"{amount} lets nothing through", "1 or more")

    def message(self) -> pb.Credit:
        return pb.Credit(messages=self.messages, bytes=self.bytes)


class Owed:
    """What the client is done with and has not granted again."""

    def __init__(self, window: CreditWindow) -> None:
        # Granted again in halves: a request for each event would cost more than the event.
        self._messages_due = max(1, window.messages // 2)
        self._bytes_due = max(1, window.bytes // 2)
        self.messages = 0
        self.bytes = 0

    def add(self, messages: int, size: int) -> bool:
        """So much is done with; whether a grant is due."""
        self.messages += messages
        self.bytes += size
        return self.messages >= self._messages_due or self.bytes >= self._bytes_due

    def take(self) -> pb.Credit:
        """All of it, to be granted."""
        credit = pb.Credit(messages=self.messages, bytes=self.bytes)
        self.messages = self.bytes = 0
        return credit


def charged(data: bytes, frame: pb.SubscribeResponse) -> tuple[int, int]:
    """Entries and bytes of a frame as its server counts them; ``data`` is what ``frame`` was parsed from.

    The length stands in the frame. To encode the message anew would not do: what is encoded
    otherwise than here has another length.
    """
    kind = frame.WhichOneof("response")
    if kind == "events":
        entries, flag = len(frame.events.events), frame.events.transaction_open
    elif kind == "snapshot_page":
        entries, flag = len(frame.snapshot_page.items), frame.snapshot_page.corrections
    else:
        return 0, 0
    wanted = _TAGS[kind]
    at = size = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type == 2:
            length, at = _varint(data, at)
            at += length
            if tag == wanted:
                size += length
        else:
            at += 8 if wire_type == 1 else 4
    return entries, size - (_FLAG_BYTES if flag else 0)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
