"""What the client makes of what a server says, where only a script can make a server say it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_pb2 as pb
from realtime.client import (
    Batch,
    CaughtUp,
    Client,
    CreditWindow,
    GapPassed,
    MemoryCursorStore,
    ReceivedEvent,
    ScopeChanged,
    Signal,
    SignalSubscription,
    SnapshotBegins,
    SnapshotEnds,
    after,
    at_time,
    earliest,
    snapshot,
)
from realtime.errors import (
    ArgumentInvalid,
    CoverageBroken,
    CursorReset,
    Gap,
    RealtimeError,
    StoreUnavailable,
    Unavailable,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.scripted_server import ScriptedCall, cursor_of, scripted


async def told(subscription: SignalSubscription, count: int) -> list[str | Signal]:
    """The next things handed out: of events the entity, of signals all."""
    result: list[str | Signal] = []
    async with asyncio.timeout(10):
        async for item in subscription:
            result.append(item.event.subject if isinstance(item, ReceivedEvent) else item)
            if len(result) == count:
                break
    return result


async def test_what_is_asked_for() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.hold()

    async with (
        scripted(script) as server,
        Client(server.address, token="abc") as client,
        client.subscribe(
            workspace="w",
            workspaces=["v"],
            kinds=["note", "user"],
            entities=["e"],
            verbs=["updated"],
            changed=["title"],
            fields=["title", "body"],
            overflow="disconnect",
            max_linger_ms=0,
            credit=CreditWindow(3, 400),
            start=at_time(datetime(2026, 1, 2, tzinfo=UTC)),
        ) as subscription,
    ):
        await subscription.ready()
        (call,) = server.calls
        assert call.metadata["authorization"] == "Bearer abc"
        assert call.open == pb.OpenSubscription(
            subscription_id="s",
            filter=pb.Filter(
                workspace_ids=["v", "w"],
                kinds=["note", "user"],
                entity_ids=["e"],
                verbs=["updated"],
                changed_fields=["title"],
            ),
            field_mask=FieldMask(paths=["title", "body"]),
            overflow_policy=pb.OVERFLOW_POLICY_DISCONNECT,
            max_linger_ms=0,
            credit=pb.Credit(messages=3, bytes=400),
            start=pb.Start(at_time=pb.AtTimeStart(time=1_767_312_000_000_000)),
        )
        assert call.open.HasField("max_linger_ms")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kinds": "note"}, "a list is needed"),
        ({"overflow": "block"}, "no policy"),
        ({"on_gap": "skip"}, "unknown"),
        ({"max_linger_ms": -1}, "cannot be"),
        ({"store": MemoryCursorStore()}, "needs the subscription's name"),
    ],
)
async def test_what_cannot_be_asked_for(options: dict[str, Any], says: str) -> None:
    async with Client("127.0.0.1:9") as client:
        with pytest.raises(ArgumentInvalid, match=says) as caught:
            client.subscribe(**options)
        assert caught.value.mend


def test_values_that_cannot_be() -> None:
    with pytest.raises(ArgumentInvalid, match="has no time zone"):
        at_time(datetime(2026, 1, 2))  # noqa: DTZ001  # that is what is refused
    with pytest.raises(ArgumentInvalid):
        snapshot(-1)
    with pytest.raises(ArgumentInvalid):
        CreditWindow(messages=0)


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


async def _with_a_gap(call: ScriptedCall) -> None:
    call.through = int(call.open.start.after.cursor[1:] or b"0")
    await call.ready()
    if call.through < 2:
        await call.events(2)
    await call.say(9, cursor_of(9), gap=pb.Gap(after=2, through=9))
    await call.events(10)
    await call.hold()


async def test_a_gap_is_raised_as_often_as_one_goes_on() -> None:
    async with (
        scripted(_with_a_gap) as server,
        Client(server.address) as client,
        client.subscribe(start=earliest()) as subscription,
    ):
        reading = aiter(subscription)
        assert (await anext(reading)).sequence == 2
        for _ in range(2):
            with pytest.raises(Gap) as caught:
                await anext(aiter(subscription))
            assert (caught.value.after, caught.value.through) == (2, 9)
            assert subscription.cursor == cursor_of(2)


async def test_a_gap_is_said_to_who_goes_on() -> None:
    async with (
        scripted(_with_a_gap) as server,
        Client(server.address) as client,
        client.subscribe(start=earliest(), on_gap="continue") as subscription,
    ):
        assert await told(subscription, 3) == ["e2", GapPassed(2, 9), "e10"]


@pytest.mark.parametrize("is_all", [True, False])
async def test_workspaces_that_are_lost(is_all: bool) -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.say(3, scope_changed=pb.ScopeChanged(lost_workspace_ids=["w"], reason="you left it"))
        await call.say(3, caught_up=pb.CaughtUp())
        await call.events(4)
        await call.hold()

    async with scripted(script) as server, Client(server.address) as client:
        if is_all:
            async with client.subscribe(signals=True) as every:
                assert await told(every, 3) == [
                    ScopeChanged(("w",), "you left it"),
                    CaughtUp(pb.SourcePosition()),
                    "e4",
                ]
                return
        async with client.subscribe() as subscription:
            async for event in subscription:
                assert event.sequence == 4
                break
            assert subscription.lost_workspaces == {"w"}


async def test_another_token_is_sent_when_the_one_in_use_ends() -> None:
    asked: list[pb.SubscribeRequest] = []

    async def script(call: ScriptedCall) -> None:
        await call.ready()
        for expires_at, answered in ((100, 200), (200, 0)):
            await call.send(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring(expires_at=expires_at)))
            asked.append(await call.request())
            await call.send(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring(expires_at=answered)))
        await call.events(1)
        await call.hold()

    tokens = iter("abc")

    async def provider() -> str:
        return next(tokens)

    async with (
        scripted(script) as server,
        Client(server.address, token=provider) as client,
        client.subscribe() as subscription,
    ):
        await subscription.ready()
        # Nothing is asked of the iteration: a slow handler does not lose its authorization.
        await eventually(lambda: len(asked) == 2)
        assert [request.reauth.token for request in asked] == ["b", "c"]
        assert server.calls[0].metadata["authorization"] == "Bearer a"
        async for event in subscription:
            assert event.sequence == 1
            break


@pytest.mark.parametrize("is_ready", [True, False])
async def test_a_token_that_ended_unseen_is_followed_by_another(is_ready: bool) -> None:
    """As after a machine slept. A new token that is refused at once is not tried again."""

    async def ended(call: ScriptedCall) -> None:
        if is_ready:
            await call.ready(cursor_of(3))
        error = codes.Error(code=codes.ERROR_CODE_UNAUTHENTICATED, message="it ended")
        await call.say(closed=pb.Closed(error=error))
        await call.hold()

    async def anew(call: ScriptedCall) -> None:
        call.through = 3
        await call.ready()
        await call.events(4)
        await call.hold()

    tokens = iter("ab")

    async def provider() -> str:
        return next(tokens)

    async with (
        scripted(ended, anew) as server,
        Client(server.address, token=provider) as client,
        client.subscribe() as subscription,
    ):
        reading = asyncio.wait_for(anext(aiter(subscription)), 10)
        if not is_ready:
            with pytest.raises(RealtimeError, match="it ended"):
                await reading
            return
        assert (await reading).sequence == 4
        assert server.calls[1].metadata["authorization"] == "Bearer b"


async def test_a_provider_that_fails_is_raised_with_its_cause() -> None:
    async def provider() -> str:
        raise ZeroDivisionError

    async with Client("127.0.0.1:9", token=provider) as client:
        with pytest.raises(RealtimeError, match="the token provider failed") as caught:
            await client.subscribe().ready()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_it_comes_again_when_the_server_said() -> None:
    gone_at: list[float] = []
    loop = asyncio.get_running_loop()

    async def goes(call: ScriptedCall) -> None:
        await call.ready(cursor_of(3))
        gone_at.append(loop.time())
        await call.send(pb.SubscribeResponse(going_away=pb.GoingAway(retry_after_ms=400)))

    async def stays(call: ScriptedCall) -> None:
        gone_at.append(loop.time())
        await call.ready()
        await call.events(4)
        await call.hold()

    async with (
        scripted(goes, stays) as server,
        Client(server.address) as client,
        client.subscribe() as subscription,
    ):
        async for event in subscription:
            assert event.sequence == 4
            break
        assert server.calls[1].open.start.after.cursor == cursor_of(3)
        assert gone_at[1] - gone_at[0] >= 0.4


async def test_a_server_that_never_proves_good_is_left_alone_more_and_more() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()

    async with scripted(script) as server, Client(server.address) as client:
        with pytest.raises(Unavailable, match="the server ended the stream"):
            await anext(aiter(client.subscribe(patience_s=1.0)))
        # Without backoff it would be hundreds.
        assert 2 <= len(server.calls) < 40


async def test_frames_after_a_gap_are_not_handed_out() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.events(1, 2)
        call.through = 5
        await call.events(6)
        await call.hold()

    async with (
        scripted(script) as server,
        Client(server.address) as client,
        client.subscribe(start=earliest()) as subscription,
    ):
        got: list[int] = []

        async def listen() -> None:
            async for event in subscription:
                got.append(event.sequence)  # noqa: PERF401  # it ends with an error

        with pytest.raises(CoverageBroken, match="begins after 5, the one before ended at 2"):
            await asyncio.wait_for(listen(), 10)
        assert got == [1, 2]


async def test_what_is_no_frame_is_an_error_of_one_line() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.say(4, events=pb.Events(events=[pb.StreamedEvent(sequence=9)]))
        await call.hold()

    async with scripted(script) as server, Client(server.address) as client:
        with pytest.raises(CoverageBroken, match="do not ascend from 0 to 4"):
            await anext(aiter(client.subscribe()))


async def test_closing_while_a_token_is_waited_for_leaves_nothing_open() -> None:
    asked, given = asyncio.Event(), asyncio.Event()

    async def provider() -> str:
        asked.set()
        await given.wait()
        return "a"

    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.hold()

    async with scripted(script) as server, Client(server.address, token=provider) as client:
        subscription = client.subscribe()
        waiting = asyncio.ensure_future(anext(aiter(subscription), None))
        await asyncio.wait_for(asked.wait(), 10)
        await subscription.close()
        given.set()
        assert await asyncio.wait_for(waiting, 10) is None
        assert subscription.waiting_bytes == 0
        assert [task for task in asyncio.all_tasks() if "Connection" in repr(task)] == []


async def test_a_store_that_fails_keeps_no_client_from_closing() -> None:
    class Failing(MemoryCursorStore):
        is_away = False

        async def save(self, name: str, cursor: bytes) -> None:
            if self.is_away:
                raise StoreUnavailable("it is away")
            await super().save(name, cursor)

    async def script(call: ScriptedCall) -> None:
        await call.ready(cursor_of(0))
        await call.events(1, 2)
        await call.hold()

    async with scripted(script) as server:
        client = Client(server.address)
        stores = [Failing(), Failing()]
        for store in stores:
            reading = aiter(client.subscribe(store=store, name="n", save_every_s=60))
            assert (await anext(reading)).sequence == 1
            assert (await anext(reading)).sequence == 2
            store.is_away = True
        with pytest.raises(StoreUnavailable, match="it is away"):
            await client.close()
        with pytest.raises(RealtimeError, match="the client was closed"):
            await client.subscribe().ready()
