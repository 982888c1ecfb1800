"""Responses as bytes: what stands around events that are bytes already.

The subscription's name is the first field and stands in front of what all members of a
lane share. Fields are written in the order of their numbers, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protos.events.v1.stream_pb2 import Coverage, Events, SubscribeResponse
from protos.wire import delimited, delimited_header, varint_field
from realtime.entry import Entry
from realtime.point import Point

Framed = tuple[Entry, Point, bytes]
"""An entry, the point right after it, and its bytes in a frame of events."""

FRAME_BYTES = 64 * 1024
LOADED_FRAME_BYTES = 128 * 1024
FRAME_MAX_BYTES = 900 * 1024
"""A frame of the first waits for no more; one grows to the second when so much waits already, and to the third
to keep a transaction together; an event over that goes alone. Why: docs/decisions/021-frames-grow-under-load.md."""

_NAME_FIELD = SubscribeResponse.SUBSCRIPTION_ID_FIELD_NUMBER
_EVENTS_FIELD = SubscribeResponse.EVENTS_FIELD_NUMBER
_OPEN_FIELD = Events.TRANSACTION_OPEN_FIELD_NUMBER


class EventsFrame(NamedTuple):
    """A frame of events. ``rest`` is all of it but the subscription's name. It has ``events`` of ``size`` bytes, the last of ``last_size``; ``through`` is the point that it leads to, ``lsn`` the transaction of
    its last event."""

    rest: bytes
    events: int
    size: int
    last_size: int
    through: Point
    lsn: int


def name_field(name: str) -> bytes:
    """What a response begins with: whose it is."""
    return delimited(_NAME_FIELD, name.encode()) if name else b""


def head(epoch: str, sent: Point, through: Point, matched: int) -> SubscribeResponse:
    """Cursor and coverage of a frame that begins after ``sent`` and leads to ``through``."""
    internal = through.internal - sent.internal
    stored = through.stored - sent.stored
    return SubscribeResponse(
        cursor=through.cursor(epoch).encode() if epoch else b"",
        coverage=Coverage(
            after=sent.sequence,
            through=through.sequence,
            matched=matched,
            skipped=stored - internal - matched,
            internal=internal,
        ),
    )


def cut_frame(
    epoch: str,
    items: Sequence[Framed],
    at: int,
    sent: Point,
    examined: Point,
    following: Framed | None = None,
    lsn: int = 0,
    limit: int = 0,
) -> EventsFrame:
    """The frame that begins at ``items[at]``, of at most ``limit`` events (0: as many as fit).

    ``following`` is what comes after the items, as far as is known; ``examined`` the point up to which
    everything that matches is known; ``lsn`` the transaction of the last event before.
    """
    start = at
    end = len(items) if not limit else min(len(items), at + limit)
    parts: list[bytes] = []
    size = 0
    through = sent
    while at < end:
        entry, point, frame = items[at]
        if parts and size + len(frame) > FRAME_MAX_BYTES:
            break
        at += 1
        parts.append(frame)
        size += len(frame)
        through = point
        if entry.commit is not None:
            lsn = entry.commit.lsn
        if size >= LOADED_FRAME_BYTES and not _goes_on(
            through, lsn, items[at] if at < len(items) else following
        ):
            break
    after = items[at] if at < len(items) else following
    if after is None:
        # All that matched is in this frame: it accounts for everything examined.
        through = max(through, examined)
    tail = varint_field(_OPEN_FIELD, _goes_on(through, lsn, after))
    rest = b"".join(
        (
            head(epoch, sent, through, len(parts)).SerializeToString(),
            delimited_header(_EVENTS_FIELD, size + len(tail)),
            *parts,
            tail,
        )
    )
    return EventsFrame(rest, at - start, size, len(parts[-1]), through, lsn)


def _goes_on(through: Point, lsn: int, following: Framed | None) -> bool:
    """Whether the last event's transaction has more to come for this subscription, as far as is known."""
    if not through.open_lsn or through.open_lsn != lsn:
        return False
    if following is None:
        return True
    entry, point, _ = following
    return point.open_lsn == lsn if entry.commit is None else entry.commit.lsn == lsn
