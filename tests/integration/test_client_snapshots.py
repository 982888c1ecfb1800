"""Snapshots and resets as the client hands them out, where only a script can make a server say it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_pb2 as pb
from realtime.client import (
    Batch,
    Client,
    CreditWindow,
    MemoryCursorStore,
    SnapshotBegins,
    SnapshotEnds,
    after,
    snapshot,
)
from realtime.errors import (
    CursorReset,
)
from tests.fixtures.client_kit import told
from tests.fixtures.eventually import eventually
from tests.fixtures.scripted_server import ScriptedCall, cursor_of, scripted


async def test_a_snapshot_says_where_it_begins_and_ends() -> None:
    async def script(call: ScriptedCall) -> None:
        assert call.open.start.snapshot.page_size == 7
        await call.ready(b"not to go on after")
        await call.page("a", "b")
        await call.page("c", corrections=True)
        await call.say(5, cursor_of(5), snapshot_end=pb.SnapshotEnd(items=3))
        await call.say(5, cursor_of(5), caught_up=pb.CaughtUp())
        await call.events(6, 7)
        await call.hold()

    async with (
        scripted(script) as server,
        Client(server.address) as client,
        client.subscribe(start=snapshot(page_size=7)) as subscription,
    ):
        assert await told(subscription, 1) == [SnapshotBegins()]
        assert await told(subscription, 3) == ["a", "b", "c"]
        assert subscription.cursor == b""
        assert await told(subscription, 1) == [SnapshotEnds(cursor_of(5), 3)]
        assert subscription.cursor == cursor_of(5)
        assert await told(subscription, 2) == ["e6", "e7"]
        assert subscription.cursor == cursor_of(7)


async def test_pages_are_batches_and_cost_credit() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.page("a", "b", "c")
        await call.page("d", corrections=True)
        while len(call.granted) < 2:
            credit = (await call.request()).credit.credit
            call.granted.append((credit.messages, credit.bytes))
        await call.hold()

    async with (
        scripted(script) as server,
        Client(server.address) as client,
        client.subscribe(start=snapshot(), credit=CreditWindow(2, 10_000)) as subscription,
    ):
        reading = aiter(subscription.batches())
        assert await anext(reading) == SnapshotBegins()
        page = await anext(reading)
        assert isinstance(page, Batch)
        assert (len(page), page.in_snapshot, page.are_corrections, page.cursor) == (3, True, False, b"")
        call = server.calls[0]
        assert call.granted == []
        page = await anext(reading)
        assert isinstance(page, Batch)
        assert page.are_corrections
        waiting = asyncio.ensure_future(anext(reading))
        entry = pb.StreamedEvent()
        entry.event.type, entry.event.subject = "note.read", "a"
        size = pb.SnapshotPage(items=[entry]).ByteSize()
        await eventually(lambda: call.granted == [(3, 3 * size), (1, size)])
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_snapshot_that_breaks_off_begins_again_and_says_so() -> None:
    async def breaks(call: ScriptedCall) -> None:
        await call.ready(cursor_of(1))
        await call.page("a", "b")

    async def whole(call: ScriptedCall) -> None:
        assert call.open.start.HasField("snapshot")
        await call.ready(cursor_of(2))
        await call.page("a")
        await call.say(5, cursor_of(5), snapshot_end=pb.SnapshotEnd(items=1))
        await call.events(6)

    async def tail(call: ScriptedCall) -> None:
        assert call.open.start.after.cursor == cursor_of(6)
        call.through = 6
        await call.ready()
        await call.events(9)
        await call.hold()

    async with (
        scripted(breaks, whole, tail) as server,
        Client(server.address) as client,
        client.subscribe(start=snapshot()) as subscription,
    ):
        assert await told(subscription, 3) == [SnapshotBegins(), "a", "b"]
        assert await told(subscription, 4) == [
            SnapshotBegins("CONNECTION_LOST"),
            "a",
            SnapshotEnds(cursor_of(5), 1),
            "e6",
        ]
        assert await told(subscription, 1) == ["e9"]
        assert subscription.reconnections == 2


def _reset(action: pb.ResetAction.ValueType) -> dict[str, Any]:
    return {"reset": pb.Reset(reason=pb.RESET_REASON_EXPIRED, earliest_cursor=cursor_of(90), action=action)}


_CLOSED: dict[str, Any] = {
    "closed": pb.Closed(error=codes.Error(code=codes.ERROR_CODE_FAILED_PRECONDITION, message="it is too old"))
}


async def test_a_snapshot_in_place_is_awaited() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.page("a")
        await call.say(5, cursor_of(5), snapshot_end=pb.SnapshotEnd(items=1))
        await call.events(6)
        await call.say(6, **_reset(pb.RESET_ACTION_AWAIT_SNAPSHOT))
        call.through = 2  # another epoch: its sequences begin anew
        await call.ready()
        await call.page("b")
        await call.say(3, cursor_of(3), snapshot_end=pb.SnapshotEnd(items=1))
        await call.hold()

    async with (
        scripted(script) as server,
        Client(server.address) as client,
        client.subscribe(start=snapshot()) as subscription,
    ):
        assert await told(subscription, 4) == [SnapshotBegins(), "a", SnapshotEnds(cursor_of(5), 1), "e6"]
        assert await told(subscription, 1) == [SnapshotBegins("EXPIRED")]
        assert subscription.cursor == b""
        assert await told(subscription, 2) == ["b", SnapshotEnds(cursor_of(3), 1)]
        assert subscription.reconnections == 0


async def test_who_wants_a_snapshot_gets_another_when_its_cursor_is_too_old() -> None:
    async def too_old(call: ScriptedCall) -> None:
        assert call.open.start.after.cursor == b"stored"
        await call.say(**_reset(pb.RESET_ACTION_FETCH_STATE))
        await call.say(**_CLOSED)
        await call.hold()

    async def anew(call: ScriptedCall) -> None:
        assert call.open.start.HasField("snapshot")
        await call.ready()
        await call.say(5, cursor_of(5), snapshot_end=pb.SnapshotEnd())
        await call.hold()

    store = MemoryCursorStore()
    await store.save("n", b"stored")
    async with (
        scripted(too_old, anew) as server,
        Client(server.address) as client,
        client.subscribe(start=snapshot(), store=store, name="n") as subscription,
    ):
        assert await told(subscription, 2) == [SnapshotBegins("EXPIRED"), SnapshotEnds(cursor_of(5), 0)]
        await subscription.save()
        assert await store.load("n") == cursor_of(5)


@pytest.mark.parametrize("action", [pb.RESET_ACTION_FETCH_STATE, pb.RESET_ACTION_GIVE_UP])
async def test_a_reset_is_raised_with_all_that_it_says(action: pb.ResetAction.ValueType) -> None:
    async def script(call: ScriptedCall) -> None:
        await call.say(**_reset(action))
        await call.say(**_CLOSED)
        await call.hold()

    async with scripted(script) as server, Client(server.address) as client:
        start = after(b"x") if action == pb.RESET_ACTION_FETCH_STATE else snapshot()
        with pytest.raises(CursorReset, match="it is too old") as caught:
            await client.subscribe(start=start, signals=True).ready()
        error = caught.value
        assert (error.reason, error.earliest_cursor) == ("EXPIRED", cursor_of(90))
        assert error.action == pb.ResetAction.Name(action).removeprefix("RESET_ACTION_")
