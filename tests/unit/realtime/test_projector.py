"""The projector: which entries become which writes, and what it does when the cache fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
from structlog.testing import capture_logs

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.cache import Cached, Clear, Forget, MemoryCache, Put, Write
from realtime.cursor import Cursor
from realtime.entry import Entry, make_entry
from realtime.errors import StoreUnavailable
from realtime.projector import Backoff, Projector

EPOCH = "0190a0000000000000aa"
WORKSPACE = "11111111-1111-4111-8111-111111111111"
NOTE = "22222222-2222-4222-8222-222222222222"
OTHER = "33333333-3333-4333-8333-333333333333"


def at(sequence: int) -> Cursor:
    return Cursor(EPOCH, sequence, sequence * 10)


def entry(
    sequence: int,
    verb: str,
    data: Note | User | bytes | None = None,
    kind: str = "note",
    entity_id: str = NOTE,
    suffix: Literal["row", "event"] = "row",
) -> Entry:
    event = Event(subject=entity_id)
    if isinstance(data, Note):
        event.note.CopyFrom(data)
    elif isinstance(data, User):
        event.user.CopyFrom(data)
    payload = data if isinstance(data, bytes) else event.SerializeToString()
    subject = str(fmt.Subject(WORKSPACE, kind, entity_id, suffix))
    return make_entry(EPOCH, subject, {fmt.VERB: verb}, payload, sequence, sequence * 10)


def note(version: int, entity_id: str = NOTE) -> Note:
    return Note(id=entity_id, title=f"v{version}", version=version, metadata={"b": "2", "a": "1"})


def model(message: Note | User) -> bytes:
    return message.SerializeToString(deterministic=True)


def fold(*entries: Entry) -> list[Write]:
    return Projector(MemoryCache()).fold(EPOCH, entries)


@pytest.mark.parametrize("verb", [fmt.CREATED, fmt.UPDATED, fmt.ENTERED])
def test_a_state_is_put_with_its_place(verb: str) -> None:
    assert fold(entry(5, verb, note(1))) == [Put("note", NOTE, at(5), model(note(1)))]


def test_users_are_put_too() -> None:
    user = User(id=OTHER, email="a@example.org")
    assert fold(entry(5, fmt.CREATED, user, "user", OTHER)) == [Put("user", OTHER, at(5), model(user))]


def test_a_deletion_is_a_tombstone() -> None:
    assert fold(entry(5, fmt.DELETED, note(1))) == [Put("note", NOTE, at(5), None)]


def test_the_last_write_of_an_entity_wins() -> None:
    entries = [
        entry(1, fmt.CREATED, note(1)),
        entry(2, fmt.CREATED, note(1, OTHER), entity_id=OTHER),
        entry(3, fmt.UPDATED, note(2)),
    ]
    assert fold(*entries) == [
        Put("note", NOTE, at(3), model(note(2))),
        Put("note", OTHER, at(2), model(note(1, OTHER))),
    ]


def test_leaving_a_workspace_waits_for_the_entering() -> None:
    assert fold(entry(1, fmt.LEFT, note(1))) == []
    assert fold(entry(1, fmt.LEFT, note(1)), entry(2, fmt.ENTERED, note(2))) == [
        Put("note", NOTE, at(2), model(note(2)))
    ]


def test_a_truncation_clears_the_kind_and_what_was_before_it() -> None:
    entries = [
        entry(1, fmt.CREATED, note(1)),
        entry(2, fmt.TRUNCATED, entity_id=fmt.NONE),
        entry(3, fmt.CREATED, note(1, OTHER), entity_id=OTHER),
    ]
    assert fold(*entries) == [Clear("note", at(2)), Put("note", OTHER, at(3), model(note(1, OTHER)))]


def test_what_is_no_state_of_a_row_is_passed_over() -> None:
    mark = make_entry(EPOCH, fmt.POSITION_SUBJECT, {}, b"", 1, 10)
    domain = entry(2, fmt.CREATED, note(1), suffix="event")
    workspace = entry(3, fmt.CREATED, b"", kind="workspace")
    unknown = entry(4, "archived", note(1))
    assert fold(mark, domain, workspace, unknown) == []


@pytest.mark.parametrize("data", [b"\xff\xff", b"", User(id=NOTE), note(1, OTHER)])
def test_a_malformed_payload_is_counted_and_its_entity_forgotten(data: Note | User | bytes) -> None:
    projector = Projector(MemoryCache())
    with capture_logs() as logs:
        writes = projector.fold(EPOCH, [entry(1, fmt.CREATED, note(1)), entry(2, fmt.UPDATED, data)])
    assert writes == [Forget("note", NOTE, at(2))]
    assert projector.malformed == 1
    assert [(line["log_level"], line["sequence"]) for line in logs] == [("error", 2)]


async def test_a_batch_and_its_watermark_reach_the_cache() -> None:
    cache = MemoryCache()
    projector = Projector(cache)
    assert await projector.start() is None
    assert await projector.apply(EPOCH, [entry(1, fmt.CREATED, note(1))], at(4))
    assert await projector.apply(EPOCH, [], at(9))
    assert await cache.get("note", NOTE) == Cached(model(note(1)), at(1))
    assert await Projector(cache).start() == at(9)


async def test_a_lost_cache_is_built_anew() -> None:
    cache = MemoryCache()
    projector = Projector(cache)
    await projector.start()
    await projector.apply(EPOCH, [entry(1, fmt.CREATED, note(1))], at(1))
    cache.lose()
    later = entry(2, fmt.CREATED, note(1, OTHER), entity_id=OTHER)
    assert not await projector.apply(EPOCH, [later], at(2))
    assert await projector.start() is None
    assert await projector.apply(EPOCH, [entry(1, fmt.CREATED, note(1)), later], at(2))
    assert await cache.get("note", NOTE) is not None


async def test_a_reset_leaves_nothing_of_the_old_history() -> None:
    cache = MemoryCache()
    projector = Projector(cache)
    await projector.start()
    await projector.apply(EPOCH, [entry(1, fmt.CREATED, note(1))], at(1))
    assert await projector.start() == at(1)
    await projector.reset()
    assert await projector.start() is None
    assert await cache.get("note", NOTE) is None


class FailingCache(MemoryCache):
    """Refuses its first ``failures`` batches, as a store that is away does."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def apply(
        self, writes: Sequence[Write], after: Cursor | None = None, through: Cursor | None = None
    ) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away", "wait")
        return await super().apply(writes, after, through)


async def test_an_outage_is_waited_for_and_logged_once() -> None:
    cache = FailingCache(failures=5)
    projector = Projector(cache, Backoff(first_s=0.0))
    with capture_logs() as logs:
        assert await projector.apply(EPOCH, [entry(1, fmt.CREATED, note(1))], at(1))
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert not projector.is_down
    assert await cache.watermark() == at(1)


def test_the_pause_grows_to_its_bound() -> None:
    pauses = Backoff(first_s=1, factor=2, most_s=5).pauses()
    assert [next(pauses) for _ in range(5)] == [1, 2, 4, 5, 5]
