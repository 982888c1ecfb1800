"""ListEvents on a real broker: what a list gives, page by page, and how it joins a subscription."""

from __future__ import annotations

from typing import Any

import pytest

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from tests.fixtures.list_kit import lister
from tests.fixtures.raw_stream import after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

SMALL: dict[str, Any] = {"ring_entries": 64}
LARGE: dict[str, Any] = {"ring_entries": 65_536}


@pytest.mark.parametrize("ring", [SMALL, LARGE])
@pytest.mark.parametrize("size", [1, 7, 100, 0])
async def test_all_pages_are_the_whole_past_in_order(
    nats_server: NatsServer, writer: StreamWriter, ring: dict[str, Any], size: int
) -> None:
    for _ in range(4):
        await writer.commit(*(Change() for _ in range(75)))
        await writer.mark()
    async with serving(nats_server.url, **ring) as address, lister(address) as client:
        listed = await client.all(size)
        assert listed.sequences == sequences(writer.stored)
        assert [event.event.note.id for event in listed.events] == [
            each.change.entity for each in writer.stored if each.change
        ]
        assert Cursor.decode(listed.cursor).sequence == writer.stored[-1].sequence
        assert len(listed.pages) >= 300 // (size or 100)


async def test_cursors_of_a_list_and_of_a_subscription_are_the_same(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit_each(Change() for _ in range(200))
    async with (
        serving(nats_server.url, **SMALL) as address,
        lister(address) as client,
        raw_stream(address) as stream,
    ):
        await stream.open("all", start=earliest())
        await stream.caught_up("all")
        listed = await client.all()
        assert list(listed.events) == stream["all"].events
        for at in (0, 120, 199):
            event = stream["all"].events[at]
            assert (await client.all(after=event.cursor)).sequences == listed.sequences[at + 1 :]
            name = f"after {at}"
            await stream.open(name, start=after(listed.events[at].cursor))
            await stream.caught_up(name)
            assert stream[name].sequences == listed.sequences[at + 1 :]
        new = await writer.commit(Change())
        await stream.open("from the list's end", start=after(listed.cursor))
        await stream.until(lambda: stream["from the list's end"].events)
        assert stream["from the list's end"].sequences == sequences(new)


@pytest.mark.parametrize("ring", [SMALL, LARGE])
async def test_a_list_has_what_a_subscription_of_the_same_filter_has(
    nats_server: NatsServer, writer: StreamWriter, ring: dict[str, Any]
) -> None:
    one, two, ada, note = (new_id() for _ in range(4))
    membership = new_id()
    for at in range(120):
        await writer.commit(
            Change(workspace=one, entity=note, verb="updated"),
            Change(workspace=two),
            Change("user", entity=ada),
            Change("user"),
            Change(workspace=one, kind="workspace", entity=one, verb="updated"),
        )
        if at == 20:
            await writer.commit(Change("membership", one, membership, user=ada))
        if at == 60:
            await writer.commit(Change(entity=fmt.NONE, verb=fmt.TRUNCATED))
            await writer.commit(Change("user", entity=fmt.NONE, verb=fmt.TRUNCATED))
        if at == 90:
            await writer.commit(Change("membership", one, membership, "deleted", user=ada))
    filters = {
        "workspace": pb.Filter(workspace_ids=[one]),
        "note": pb.Filter(entity_ids=[note]),
        "user": pb.Filter(entity_ids=[ada], workspace_ids=[one]),
        "user anywhere": pb.Filter(entity_ids=[ada], kinds=["user"]),
        "kind": pb.Filter(kinds=["note"]),
        "kinds": pb.Filter(workspace_ids=[one, two], kinds=["note", "user"]),
        "many": pb.Filter(entity_ids=[note, ada, *(new_id() for _ in range(20))]),
        "nothing": pb.Filter(workspace_ids=[new_id()], kinds=["workspace"]),
        "all": pb.Filter(),
    }
    async with (
        serving(nats_server.url, **ring) as address,
        lister(address) as client,
        raw_stream(address) as stream,
    ):
        for name, wanted in filters.items():
            await stream.open(name, wanted, earliest())
            await stream.caught_up(name)
            listed = await client.all(50, filter=wanted)
            assert listed.sequences == stream[name].sequences, name
            assert Cursor.decode(listed.cursor).sequence == writer.stored[-1].sequence
        assert not stream["nothing"].events
        assert len(stream["user"].events) > 60


async def test_verbs_and_changed_fields(nats_server: NatsServer, writer: StreamWriter) -> None:
    verbs = ("created", "updated", "deleted", "truncated")
    stored = await writer.commit(*(Change(verb=verb) for verb in verbs))
    async with serving(nats_server.url) as address, lister(address) as client:
        listed = await client.all(filter=pb.Filter(verbs=["deleted"]))
        assert listed.sequences == sequences(stored[2:])
        # No field changed, as the writer writes it.
        listed = await client.all(filter=pb.Filter(changed_fields=["title"]))
        assert listed.sequences == [1, 3, 4]


async def test_times(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(100))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        stored = (await client.all()).events
        stamps = [Cursor.decode(event.cursor).timestamp_ns for event in stored]

        def between(since_us: int, until_us: int) -> list[int]:
            return [
                event.sequence
                for event, stamp in zip(stored, stamps, strict=True)
                if stamp >= since_us * 1000 and (not until_us or stamp < until_us * 1000)
            ]

        first, half, last = (stamps[at] // 1000 for at in (0, 50, 99))
        for since, until in (
            (half, 0),
            (0, half),
            (half, last),
            (first, last + 1),
            (1, half),
            (last + 1, 0),
            (0, 1),
            (last + 10**9, 0),
            (2**62, 0),
            (0, 2**62),
        ):
            listed = await client.all(30, from_time=since, until_time=until)
            assert listed.sequences == between(since, until), (since, until)
        assert half < last
        listed = await client.all(after=stored[60].cursor, from_time=1, until_time=last)
        assert listed.sequences == [each for each in between(0, last) if each > stored[60].sequence]


async def test_a_list_is_of_one_moment_and_its_tokens_stay(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    old = await writer.commit_each(Change() for _ in range(150))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        first = await client.page(size=100)
        second = await client.page(first.page.next_page_token, 100)
        assert not second.page.next_page_token
        await writer.commit_each(Change() for _ in range(300))
        again = await client.page(first.page.next_page_token, 100)
        assert again == second
        assert [event.sequence for event in second.events] == sequences(old)[100:]
        rest = await client.all(after=second.cursor)
        assert rest.sequences == sequences(writer.stored)[150:]
    # Another server of the same stream goes on with the same token.
    async with serving(nats_server.url, **LARGE) as address, lister(address) as client:
        assert await client.page(first.page.next_page_token, 100) == second


async def test_a_transaction_that_is_not_whole_is_not_shown(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    old = await writer.commit(Change())
    async with serving(nats_server.url) as address, lister(address) as client:
        part = await writer.commit(Change(), Change(), open_end=True)
        listed = await client.all()
        assert listed.sequences == sequences(old)
        assert Cursor.decode(listed.cursor).sequence == 1
        rest = await writer.finish(2, Change())
        assert (await client.all(after=listed.cursor)).sequences == sequences(part + rest)


async def test_an_empty_stream(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, lister(address) as client:
        listed = await client.all()
        assert listed.events == []
        assert len(listed.pages) == 1
        await writer.commit(Change())
        await writer.api("STREAM.PURGE.ZEPHYR")
        assert (await client.all(filter=pb.Filter(entity_ids=[new_id()]))).events == []


async def test_holes_and_what_is_foreign(nats_server: NatsServer, writer: StreamWriter) -> None:
    entity = new_id()
    await writer.commit_each(Change(entity=entity) for _ in range(300))
    await writer.foreign("zephyr.0.too.short", b"x")
    await writer.commit_each(Change() for _ in range(100))
    removed = {1, 2, 3, 50, 299, 300, 399}
    for sequence in removed:
        await writer.remove(sequence)
    left = [sequence for sequence in sequences(writer.stored) if sequence not in removed]
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        assert (await client.all(40)).sequences == left
        listed = await client.all(40, filter=pb.Filter(entity_ids=[entity]))
        assert listed.sequences == [sequence for sequence in left if sequence <= 300]


async def test_a_page_is_bounded_in_bytes_and_a_large_event_stands_alone(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    large = Change(size=7 * 1024 * 1024)
    await writer.commit_each([Change(), large, large, Change()])
    await writer.commit_each(Change(size=100_000) for _ in range(60))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        listed = await client.all(1000)
        assert listed.sequences == sequences(writer.stored)
        assert [len(page.events) for page in listed.pages[:3]] == [1, 1, 1]
        assert all(page.ByteSize() < 1024 * 1024 + 1000 for page in listed.pages[3:])
        assert len(listed.pages) < 15
