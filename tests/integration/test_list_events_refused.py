"""ListEvents that cannot be answered, or not at once: the status, the reason and the mend each time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid, CursorInvalid, CursorReset, LimitExceeded, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.list_kit import lister
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

SMALL: dict[str, Any] = {"ring_entries": 64}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"size": -1}, "page.page_size"),
        ({"from_time": -1}, "from_time"),
        ({"until_time": -5}, "until_time"),
        ({"from_time": 20, "until_time": 20}, "until_time"),
        ({"filter": pb.Filter(kinds=["cat"])}, "filter.kinds[0]"),
        ({"filter": pb.Filter(verbs=["updated", "a b"])}, "filter.verbs[1]"),
        ({"filter": pb.Filter(changed_fields=[""])}, "filter.changed_fields[0]"),
        ({"token": "x"}, "page.page_token"),
        ({"token": "ü"}, "page.page_token"),
        ({"token": "AAAA"}, "page.page_token"),
        ({"after": b"x"}, "cursor"),
    ],
)
async def test_what_is_malformed_is_named(
    nats_server: NatsServer, writer: StreamWriter, asked: dict[str, Any], field: str
) -> None:
    await writer.commit(Change())
    async with serving(nats_server.url) as address, lister(address) as client:
        with pytest.raises(ArgumentInvalid) as caught:
            await client.page(**asked)
        assert [name for name, _ in caught.value.violations] == [field]


async def test_too_large_a_filter_and_bytes_that_are_no_request(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit(Change())
    async with serving(nats_server.url) as address, lister(address) as client:
        with pytest.raises(LimitExceeded):
            await client.page(filter=pb.Filter(entity_ids=[new_id() for _ in range(1001)]))
        with pytest.raises(ArgumentInvalid, match="no ListEventsRequest"):
            await client.bytes(b"\xff\xff\xff")
        # More than the most is the most, as AIP-158 has it.
        assert len((await client.page(size=2**31 - 1)).events) == 1


async def test_a_token_of_another_question_or_that_was_changed(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit_each(Change() for _ in range(20))
    async with serving(nats_server.url) as address, lister(address) as client:
        page = await client.page(size=5)
        token = page.page.next_page_token
        for asked in (
            {"filter": pb.Filter(kinds=["note"])},
            {"from_time": 1},
            {"until_time": 2**50},
            {"after": page.cursor},
        ):
            with pytest.raises(ArgumentInvalid, match="another list"):
                await client.page(token, 5, **asked)
        for at in range(0, len(token), 9):
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            with pytest.raises(ArgumentInvalid, match="page_token"):
                await client.page(changed)
        # The size may change from page to page.
        assert [event.sequence for event in (await client.page(token, 3)).events] == [6, 7, 8]


@pytest.mark.parametrize("wanted", [pb.Filter(), pb.Filter(workspace_ids=[new_id()])])
async def test_what_retention_took_is_told(
    nats_server: NatsServer, writer: StreamWriter, wanted: pb.Filter
) -> None:
    await writer.delete()

    async def is_made() -> bool:  # the broker may still be busy with removing the former one's files
        await writer.create(max_msgs=200)
        return True

    await eventually(is_made)
    (workspace,) = wanted.workspace_ids or ("_",)
    await writer.commit_each(Change(workspace=workspace) for _ in range(150))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        first = await client.page(size=10, filter=wanted)
        cursor, token = first.events[4].cursor, first.page.next_page_token
        since = Cursor.decode(cursor).timestamp_ns // 1000
        assert (await client.page(filter=wanted, from_time=since)).events
        await writer.commit_each(Change(workspace=workspace) for _ in range(300))
        await client.stands_at(450)
        for asked in ({"token": token}, {"after": cursor}, {"from_time": since}):
            with pytest.raises(CursorReset) as caught:
                await client.page(size=10, filter=wanted, **asked)
            assert caught.value.reason == "EXPIRED"
            assert caught.value.code == codes.ERROR_CODE_OUT_OF_RANGE
            assert "oldest that is left" in caught.value.mend
        assert (await client.all(filter=wanted)).sequences == list(range(251, 451))
        assert (await client.all(filter=wanted, until_time=since)).events == []


@pytest.mark.parametrize("wanted", [pb.Filter(), pb.Filter(workspace_ids=[new_id()], kinds=["note"])])
async def test_retention_beside_a_list_is_no_gap(
    nats_server: NatsServer, writer: StreamWriter, wanted: pb.Filter
) -> None:
    await writer.delete()

    async def is_made() -> bool:
        await writer.create(max_msgs=1500)
        return True

    await eventually(is_made)
    (workspace,) = wanted.workspace_ids or ("_",)
    await writer.commit_each(Change(workspace=workspace) for _ in range(1500))
    outcomes: list[str] = []
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:

        async def list_all() -> None:
            token, last = "", 0
            try:
                while True:
                    page = await client.page(token, 50, filter=wanted)
                    for event in page.events:
                        assert not last or event.sequence == last + 1
                        last = event.sequence
                    token = page.page.next_page_token
                    if not token:
                        assert Cursor.decode(page.cursor).sequence == last
                        outcomes.append("whole")
                        return
            except CursorReset as exc:
                outcomes.append(exc.reason)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(list_all())
            for _ in range(20):
                await writer.commit_each(Change(workspace=workspace) for _ in range(100))
    assert len(outcomes) == 4
    assert set(outcomes) <= {"whole", "EXPIRED"}


async def test_another_epoch(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(20))
    async with serving(nats_server.url) as address, lister(address) as client:
        page = await client.page(size=5)
        await writer.delete()
        await writer.create()
        await writer.commit_each(Change() for _ in range(30))

        async def has_noticed() -> bool:
            try:
                return (await client.all()).sequences == sequences(writer.stored)
            except Unavailable:
                return False

        await eventually(has_noticed)
        for asked in ({"token": page.page.next_page_token, "size": 5}, {"after": page.cursor}):
            with pytest.raises(CursorReset) as caught:
                await client.page(**asked)
            assert caught.value.reason == "EPOCH_CHANGED"
            assert caught.value.code == codes.ERROR_CODE_FAILED_PRECONDITION


async def test_a_history_that_was_rewritten(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(20))
    async with serving(nats_server.url) as address, lister(address) as client:
        seen = Cursor.decode((await client.page()).events[3].cursor)
        for cursor in (
            Cursor(seen.epoch, seen.sequence, seen.timestamp_ns + 1),
            Cursor(seen.epoch, 21, seen.timestamp_ns),
        ):
            with pytest.raises(CursorReset) as caught:
                await client.page(after=cursor.encode())
            assert caught.value.reason == "HISTORY_REWRITTEN"
            assert caught.value.code == codes.ERROR_CODE_FAILED_PRECONDITION
        with pytest.raises(CursorInvalid):
            await client.page(after=seen.encode()[:-1])


async def test_a_call_examines_so_much_and_says_how_far(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit_each(Change() for _ in range(12_000))
    workspace = new_id()
    last = await writer.commit(Change("workspace", workspace, workspace, "renamed"))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        renamed = pb.Filter(verbs=["renamed"])
        page = await client.page(filter=renamed)
        assert page.events == []
        assert page.page.next_page_token
        assert 1_000 <= Cursor.decode(page.cursor).sequence <= 12_000
        listed = await client.all(filter=renamed)
        assert listed.sequences == sequences(last)
        # The cursor of an empty page can be gone on after.
        assert (await client.all(after=listed.pages[0].cursor, filter=renamed)).sequences == sequences(last)
        # By the broker's index nothing but what matches is read.
        for wanted in (pb.Filter(entity_ids=[workspace]), pb.Filter(kinds=["workspace"])):
            page = await client.page(filter=wanted)
            assert [event.sequence for event in page.events] == sequences(last)
            assert not page.page.next_page_token


async def test_while_the_broker_is_away(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(200))
    async with serving(nats_server.url, **SMALL) as address, lister(address) as client:
        first = await client.page()
        await nats_server.kill()
        with pytest.raises(Unavailable) as caught:
            await client.page(first.page.next_page_token, timeout=4)
        assert caught.value.mend == "try again"
        await nats_server.restart()

        async def is_back() -> bool:
            try:
                page = await client.page(first.page.next_page_token)
            except Unavailable:
                return False
            return [event.sequence for event in page.events] == sequences(writer.stored)[100:]

        await eventually(is_back, timeout=30)
