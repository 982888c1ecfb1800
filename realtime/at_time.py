"""The point of the stream right before what was stored at or after a time.

The broker's clock is what counts. A point is given only where nothing that was stored since
the time can have left the stream: what retention took is told, never passed over.
"""

from __future__ import annotations

from realtime.errors import CursorReset
from realtime.jetstream import StreamReader, StreamState
from realtime.point import Point


async def point_before(reader: StreamReader, time_us: int) -> Point:
    """The point before the first message stored at or after ``time_us`` (Unix time in microseconds); the
    end of the stream when there is none yet.

    Raises:
        CursorReset: EXPIRED; retention may have taken messages that were stored since.
        SourceUnavailable: the broker does not answer.
    """
    timestamp_ns = time_us * 1000
    before = await reader.state()
    found = await reader.first_since(timestamp_ns)
    # Asked last: what left the stream until now is known by then.
    after = await reader.state()
    if _may_be_gone(after, timestamp_ns):
        raise CursorReset(
            "EXPIRED",
            f"the stream begins at {after.first_sequence}, and what was stored before that is not older than"
            " the time asked for",
        )
    sequence = before.last_sequence if found is None else found - 1
    stored = await reader.timestamp_ns(sequence) if sequence else None
    return Point(sequence, stored or 0, 0, 0, 0)


def _may_be_gone(state: StreamState, timestamp_ns: int) -> bool:
    """Whether a message that is gone may have been stored at or after the time.

    All of them were stored before the oldest that is left, or with an empty stream not after the last one.
    """
    if state.first_sequence <= 1 or not state.last_sequence:
        return False
    return (state.first_timestamp_ns or state.last_timestamp_ns) >= timestamp_ns
