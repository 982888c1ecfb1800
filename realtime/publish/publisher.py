"""What all calls that publish share: the broker, the producers, the places, the rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from protos.events.v1 import publish_pb2 as pb
from realtime.auth.policy import Policy
from realtime.errors import RealtimeError
from realtime.jetstream import StreamReader
from realtime.publish.access import PublishAccess
from realtime.publish.broker import Broker
from realtime.publish.draft import Drafter, quoted, source_of
from realtime.publish.item import Item
from realtime.publish.places import Places
from realtime.publish.table import Producers
from realtime.publish.versions import expected_version
from realtime.publish.window import Allowance

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Of one server."""

    broker: Broker
    producers: Producers
    places: Places
    reader: StreamReader
    drafter: Drafter
    policy: Policy
    allowance: Allowance

    def item(
        self,
        access: PublishAccess,
        event: pb.NewEvent,
        expectation: pb.Expectation | None,
        sequence: int,
        event_id: str,
        source: str,
        field: str = "event",
        more: str = "",
    ) -> Item:
        """An event as it goes into a line. Its rules are kept already.

        Raises:
            RealtimeError: it cannot be stored.
        """
        access.check(event)
        message = self.drafter.message(event, event_id, source, actor_of(access), more)
        expected = -1
        if expectation is not None:
            expected = expected_version("expectation", expectation, self.places.epoch)
        return Item(sequence, message, event_id, expected, field)

    def source(self, access: PublishAccess, producer_id: str) -> str:
        """The ``source`` of a call's events."""
        return source_of(producer_id or access.caller.id)

    async def stored(self, items: Sequence[Item]) -> list[pb.Stored]:
        """What is said of items that are stored.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        cursors = await self.places.cursors([item.stored_at for item in items])
        return [
            pb.Stored(
                cursor=cursor,
                sequence=item.stored_at,
                version=item.stored_at,
                event_id=item.event_id,
                repeated=item.is_repeated,
            )
            for item, cursor in zip(items, cursors, strict=True)
        ]

    async def ready(self) -> None:
        """Waits until the stream is known."""
        await self.places.ready()


def actor_of(access: PublishAccess) -> str:
    """The caller as the actor of what names none."""
    return _CONTROL.sub("", access.caller.id)


def message_id(access: PublishAccess, request_id: str) -> str:
    """What the broker knows a request id by: that of one caller is not another's."""
    own = quoted(request_id)
    return f"{quoted(access.caller.id)}/{own}" if access.caller.id else own


def in_event(index: int, error: RealtimeError) -> list[tuple[str, str]]:
    """The faults of one event of a batch, as violations of the whole request."""
    found = getattr(error, "violations", ()) or (("event", error.message),)
    return [(f"events[{index}].{field}", description) for field, description in found]
