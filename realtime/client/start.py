"""Where a subscription begins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from protos.events.v1 import stream_pb2 as pb
from realtime.errors import ArgumentInvalid

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_PAGE_SIZE = 2**32 - 1


@dataclass(frozen=True, slots=True)
class SnapshotStart:
    """The present state, and what changes from there on."""

    page_size: int = 0

    def message(self) -> pb.Start:
        return pb.Start(snapshot=pb.SnapshotStart(page_size=self.page_size))


@dataclass(frozen=True, slots=True)
class Start:
    """A place in the stream. The functions below say the same in one word."""

    position: str
    cursor: bytes = b""
    time_us: int = 0
    """Unix time in microseconds."""

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

    @classmethod
    def at_time(cls, when: datetime) -> Start:
        """The first event that was stored at or after a time; live when it is in the future.

        Raises:
            ArgumentInvalid: the time has no zone.
        """
        return cls("at_time", time_us=unix_us("start.at_time", when))

    @classmethod
    def snapshot(cls, page_size: int = 0) -> SnapshotStart:
        """The present state, in pages of at most so many items (0: as the server likes), then what changes.

        Raises:
            ArgumentInvalid: the page size is negative or too large.
        """
        if not 0 <= page_size <= _MAX_PAGE_SIZE:
            raise ArgumentInvalid("start.snapshot", f"a page of {page_size} items", "0 or more")
        return SnapshotStart(page_size)

    def message(self) -> pb.Start:
        if self.position == "after":
            return pb.Start(after=pb.AfterStart(cursor=self.cursor))
        if self.position == "earliest":
            return pb.Start(earliest=pb.EarliestStart())
        if self.position == "at_time":
            return pb.Start(at_time=pb.AtTimeStart(time=self.time_us))
        return pb.Start(live=pb.LiveStart())


live = Start.live
earliest = Start.earliest
after = Start.after
at_time = Start.at_time
snapshot = Start.snapshot


def unix_us(field: str, when: datetime) -> int:
    """Unix time in microseconds.

    Raises:
        ArgumentInvalid: the time has no zone; names the field.
    """
    if when.tzinfo is None:
        raise ArgumentInvalid(field, f"{when} has no time zone", "pass a datetime with tzinfo, such as UTC")
    return (when - _UNIX_EPOCH) // timedelta(microseconds=1)
