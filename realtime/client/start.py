"""Where a subscription begins."""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1 import stream_pb2 as pb


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins."""

    position: str
    cursor: bytes = b""

    @classmethod
    def live(cls) -> Start:
        """Events that are committed after the subscription is ready."""
        return cls("live")

    @classmethod
    def earliest(cls) -> Start:
        """The oldest event that the stream still holds."""
        return cls("earliest")

    @classmethod
    def after(cls, cursor: bytes) -> Start:
        """After a cursor that was received before."""
        return cls("after", cursor)

    def message(self) -> pb.Start:
        if self.position == "after":
            return pb.Start(after=pb.AfterStart(cursor=self.cursor))
        if self.position == "earliest":
            return pb.Start(earliest=pb.EarliestStart())
        return pb.Start(live=pb.LiveStart())
