"""Results of a stream of events, as bytes: most of what is written for each event, so joined by hand."""

from __future__ import annotations

from collections.abc import Sequence

from protos.events.v1 import publish_pb2 as pb
from realtime.errors import AlreadyStored
from realtime.publish.item import Item
from realtime.status import to_error


def results_of(run: Sequence[Item], cursors: Sequence[bytes]) -> bytes:
    """A response with the results of settled items. ``cursors`` are of those that are stored, in their order."""
    response = pb.PublishStreamResponse()
    results = response.results.results
    at = 0
    for item in run:
        if item.stored_at:
            place = item.stored_at
            results.add(
                sequence=item.sequence,
                stored=pb.Stored(
                    cursor=cursors[at],
                    sequence=place,
                    version=place,
                    event_id=item.event_id,
                    repeated=item.is_repeated,
                ),
            )
            at += 1
        elif isinstance(item.error, AlreadyStored):
            results.add(sequence=item.sequence, already_stored=pb.AlreadyStored())
        else:
            assert item.error is not None
            results.add(sequence=item.sequence, error=to_error(item.error))
    return response.SerializeToString()
