"""Results of a stream of events, as bytes: most of what is written for each event, so joined by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protos.events.v1 import publish_pb2 as pb
from protos.wire import delimited, varint, varint_field
from realtime.errors import AlreadyStored
from realtime.publish.item import Item
from realtime.status import to_error

_RESULTS: Final = pb.PublishStreamResponse.RESULTS_FIELD_NUMBER
_RESULT: Final = pb.PublishResults.RESULTS_FIELD_NUMBER
_SEQUENCE: Final = pb.PublishResult.SEQUENCE_FIELD_NUMBER
_STORED: Final = pb.PublishResult.STORED_FIELD_NUMBER
_CURSOR: Final = pb.Stored.CURSOR_FIELD_NUMBER
_PLACE_TAG: Final = varint(pb.Stored.SEQUENCE_FIELD_NUMBER << 3)
_VERSION_TAG: Final = varint(pb.Stored.VERSION_FIELD_NUMBER << 3)
_EVENT_ID: Final = pb.Stored.EVENT_ID_FIELD_NUMBER
_REPEATED: Final = varint_field(pb.Stored.REPEATED_FIELD_NUMBER, 1)


def results_of(run: Sequence[Item], cursors: Sequence[bytes]) -> bytes:
    """A response with the results of settled items. ``cursors`` are of those that are stored, in their order."""
    parts: list[bytes] = []
    at = 0
    for item in run:
        if item.stored_at:
            place = varint(item.stored_at)
            stored = (
                delimited(_CURSOR, cursors[at])
                + _PLACE_TAG
                + place
                + _VERSION_TAG
                + place
                + delimited(_EVENT_ID, item.event_id.encode())
            )
            at += 1
            if item.is_repeated:
                stored += _REPEATED
            result = varint_field(_SEQUENCE, item.sequence) + delimited(_STORED, stored)
        elif isinstance(item.error, AlreadyStored):
            result = pb.PublishResult(
                sequence=item.sequence, already_stored=pb.AlreadyStored()
            ).SerializeToString()
        else:
            assert item.error is not None
            result = pb.PublishResult(sequence=item.sequence, error=to_error(item.error)).SerializeToString()
        parts.append(delimited(_RESULT, result))
    return delimited(_RESULTS, b"".join(parts))
