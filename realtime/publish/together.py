"""Events without a producer: stored at once, and once a request id.

A known id is looked up by a message that cannot be stored: docs/decisions/024-a-batch-ends-with-its-mark.md.
"""

from __future__ import annotations

import secrets

from realtime.errors import RealtimeError, SourceUnavailable, Unavailable, VersionConflict
from realtime.publish.broker import DUPLICATE, WRONG_LAST, WRONG_LAST_ID, Ack, Refused
from realtime.publish.commands import Message
from realtime.publish.item import Item
from realtime.publish.publisher import Publisher
from realtime.publish.versions import conflict_of, present_versions

_IMPOSSIBLE = f"zephyr/{secrets.token_hex(16)}"
"""A message id that nobody's message has."""


async def store_together(publisher: Publisher, items: list[Item], known_by: str) -> None:
    """Stores one message by itself, more of them as an atomic batch. ``known_by`` is the header of the first that
    makes a repetition known; empty without one.

    Raises:
        VersionConflict: what is expected is not so; with all that conflicts.
        Unavailable: they are not stored, or may be.
    """
    broker = publisher.broker
    messages = [item.outgoing() for item in items]
    try:
        ack = await (broker.publish(messages[0]) if len(messages) == 1 else broker.store(messages))
    except Refused as exc:
        earlier = await _stored_earlier(publisher, items, known_by)
        if earlier is None:
            if exc.error_code == WRONG_LAST:
                raise await _conflict(publisher, items) from exc
            if exc.error_code == DUPLICATE:
                raise Unavailable("the request's window ended just now", "try again") from exc
            raise Unavailable(exc.message, exc.mend) from exc
        ack = Ack(earlier.sequence + len(items) - 1, len(items), is_duplicate=True)
    first = ack.sequence - len(items) + 1
    for place, item in enumerate(items, first):
        item.store(place, is_repeated=ack.is_duplicate)


async def _stored_earlier(publisher: Publisher, items: list[Item], known_by: str) -> Ack | None:
    """Where an earlier call with the same request id stored its first event; None when there is none.

    The broker looks an id up before it holds the last message's id against what is expected: so an id that
    cannot be is refused, unless the request is known.
    """
    if not known_by:
        return None
    first = items[0].message
    head = f"{first.head}Nats-Expected-Last-Msg-Id: {_IMPOSSIBLE}\r\n"
    try:
        return await publisher.broker.publish(Message(first.subject, head, b""))
    except Refused as exc:
        if exc.error_code == WRONG_LAST_ID:
            return None
        raise Unavailable(exc.message, exc.mend) from exc


async def _conflict(publisher: Publisher, items: list[Item]) -> RealtimeError:
    expecting = [item for item in items if item.expected >= 0]
    try:
        present = await present_versions(publisher.reader, [item.message.subject for item in expecting])
    except SourceUnavailable as exc:
        return Unavailable(exc.message, exc.mend)
    conflicts = []
    for item in expecting:
        last = present[item.message.subject]
        if item.expected != (last.sequence if last is not None else 0):
            conflicts.append(conflict_of(item.field, publisher.places.epoch, last))
    if not conflicts:
        return Unavailable("others publish about the same entity at the same time", "try again")
    return VersionConflict(conflicts)
