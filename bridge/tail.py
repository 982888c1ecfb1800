"""Where the stream ends for the bridge: its own last change, among what others store.

Others publish beside it, a million messages perhaps, and between two of its own. Rows are the
bridge's alone, so the broker finds the last one by its subject, whatever stands behind it. The
bridge's domain events have subjects like those of others: they are stored together with a mark
that covers them or not at all, so nobody has to look for them. See docs/decisions/025.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from bridge.change import Position
from bridge.jetstream import JetStream, StoredMessage
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.events.v1.mark_pb2 import PositionMark


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the stream ends: the last stored change (None: none yet), the mark before it, and when the
    change was committed (Unix time in microseconds; 0: not known)."""

    position: Position | None
    mark: PositionMark
    commit_time_us: int = 0


async def last_change(jetstream: JetStream, after: int) -> tuple[fmt.CommitPlace, int] | None:
    """Place and commit time of the last change of a row after the sequence of a mark; None: there is none.

    Nobody may store rows meanwhile. What a backfill read is a row's message and no change: where such
    ones are last, the rows after the mark are gone through, which are few: a mark follows soon.
    """
    last = await jetstream.last(fmt.ROW_SUBJECTS)
    if last is None or last.sequence <= after:
        return None
    found = last if fmt.COMMIT in last.headers else await _last_before(jetstream, after, last.sequence)
    if found is None:
        return None
    return fmt.parse_commit(found.headers[fmt.COMMIT]), _commit_time_us(found)


async def _last_before(jetstream: JetStream, after: int, end: int) -> StoredMessage | None:
    found = None
    while (message := await jetstream.next(fmt.ROW_SUBJECTS, after + 1)) is not None:
        after = message.sequence
        if after >= end:
            break
        if fmt.COMMIT in message.headers:
            found = message
    return found


def _commit_time_us(message: StoredMessage) -> int:
    try:
        return Event.FromString(message.payload).time
    except DecodeError:
        return 0  # Not ours, whatever its headers say; the next mark knows.
