"""How much a subscription may send: events and bytes, granted by its client.

Any positive credit admits one event, whatever its size, so the bytes may go below zero by
one event. What is None is not bounded.
"""

from __future__ import annotations

from realtime.errors import ArgumentInvalid

_MOST = 1 << 62
"""What is granted beyond it counts as no bound."""


class Credit:
    """What is left of it."""

    __slots__ = ("bytes", "messages")

    def __init__(self, messages: int | None = None, size: int | None = None) -> None:
        self.messages = messages
        self.bytes = size

    @property
    def is_open(self) -> bool:
        """Whether one event more may be sent."""
        return (self.messages is None or self.messages > 0) and (self.bytes is None or self.bytes > 0)

    def covers(self, count: int, size: int, last_size: int) -> bool:
        """Whether so many events of ``size`` bytes may be sent, the last of ``last_size``: each of them must
        begin while there is credit."""
        return (self.messages is None or count <= self.messages) and (
            self.bytes is None or size - last_size < self.bytes
        )

    def spend(self, count: int, size: int) -> None:
        """So many were sent."""
        if self.messages is not None:
            self.messages -= count
        if self.bytes is not None:
            self.bytes -= size

    def grant(self, messages: int | None, size: int | None) -> None:
        """Adds to what is left; None adds nothing. What is not bounded stays so.

        Raises:
            ArgumentInvalid: an amount is negative.
        """
        for name, amount in (("messages", messages), ("bytes", size)):
            if amount is not None and amount < 0:
                raise ArgumentInvalid(f"credit.credit.{name}", f"{amount} is negative", "grant 0 or more")
        if self.messages is not None and messages is not None:
            self.messages = min(self.messages + messages, _MOST)
        if self.bytes is not None and size is not None:
            self.bytes = min(self.bytes + size, _MOST)
