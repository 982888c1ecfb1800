"""The version of an entity's domain events: the sequence of the last message of its ``event`` subject."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from protos.events.v1.publish_pb2 import Expectation
from realtime.cursor import Cursor, encode_cursor
from realtime.errors import ArgumentInvalid, CursorInvalid, CursorReset
from realtime.jetstream import LastMessage, StreamReader

_AT_ONCE = 32


def expected_version(field: str, expectation: Expectation, epoch: str) -> int:
    """Which version is expected; -1: any.

    Raises:
        ArgumentInvalid: it is no cursor.
        CursorReset: it is one of another epoch.
    """
    kind = expectation.WhichOneof("expectation")
    if kind is None:
        return -1
    if kind == "version":
        return expectation.version
    try:
        cursor = Cursor.decode(expectation.last_cursor)
    except CursorInvalid as exc:
        raise ArgumentInvalid(f"{field}.last_cursor", exc.violations[0][1], exc.mend) from exc
    if cursor.epoch != epoch:
        raise CursorReset(
            "EPOCH_CHANGED", f"{field}.last_cursor: it is of epoch {cursor.epoch}, now is {epoch}"
        )
    return cursor.sequence


async def present_versions(reader: StreamReader, subjects: Collection[str]) -> dict[str, LastMessage | None]:
    """The last message of each subject, as the leader has it.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    found: dict[str, LastMessage | None] = {}
    wanted = list(dict.fromkeys(subjects))
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        messages = await asyncio.gather(*(reader.last(subject) for subject in some))
        found.update(zip(some, messages, strict=True))
    return found


def conflict_of(field: str, epoch: str, last: LastMessage | None) -> tuple[str, int, bytes]:
    """What a ``VersionConflict`` says of one event."""
    if last is None:
        return field, 0, b""
    return field, last.sequence, encode_cursor(epoch, last.sequence, last.timestamp_ns)
