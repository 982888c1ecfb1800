"""Who calls and what they may see, over real gRPC, with a policy that the test rules."""

from __future__ import annotations

import time

import grpc
import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime.auth import Scope
from realtime.services import access
from tests.fixtures.eventually import eventually
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.raw_stream import RawStream, after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

ONE, TWO, THREE = new_id(), new_id(), new_id()
BOTH = pb.Filter(workspace_ids=[ONE, TWO])


def ruled() -> RuledPolicy:
    return RuledPolicy(ann=Scope(frozenset((ONE, TWO))), bob=Scope(frozenset((THREE,)), frozenset(("note",))))


def expiries(stream: RawStream) -> list[int]:
    return [f.auth_expiring.expires_at for f in stream.stream_frames if f.HasField("auth_expiring")]


async def reauth(stream: RawStream, token: str) -> None:
    await stream.send(pb.SubscribeRequest(reauth=pb.Reauthentication(token=token)))


@pytest.mark.parametrize("token", ["", "eve"])
async def test_a_caller_who_is_not_known_gets_no_stream(
    nats_server: NatsServer, writer: StreamWriter, token: str
) -> None:
    async with serving(nats_server.url, ruled_by=ruled()) as address, raw_stream(address, token) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "log in" in str(caught.value.details())


async def test_what_a_caller_may_see_when_it_opens(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url, ruled_by=ruled()) as address, raw_stream(address, "bob") as stream:
        await stream.open("all")
        await stream.open("some", pb.Filter(workspace_ids=[ONE, THREE]))
        await stream.until(lambda: "scope_changed" in stream["some"].said)
        assert list(stream["some"].last.scope_changed.lost_workspace_ids) == [ONE]
        for name, wanted in (
            ("not its own", pb.Filter(workspace_ids=[ONE])),
            ("kind", pb.Filter(kinds=["note", "user"])),
        ):
            await stream.open(name, wanted, wait=False)
            assert (await stream.closed(name)).error.code == codes.ERROR_CODE_PERMISSION_DENIED
            assert stream[name].said == ["closed"]
        stored = await writer.commit(
            Change(workspace=ONE), Change(workspace=THREE), Change("membership", THREE), Change("user")
        )
        for name in ("all", "some"):
            await stream.ask_progress(name)
            assert stream[name].counts == [1, 3, 0], name
            assert stream[name].sequences == [stored[1].sequence]


@pytest.mark.parametrize("tells", [True, False])
async def test_losing_one_workspace_of_several(
    nats_server: NatsServer, writer: StreamWriter, tells: bool
) -> None:
    policy = ruled()
    await writer.commit(Change(workspace=ONE), Change(workspace=TWO))
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH, earliest())
        await stream.open("b", pb.Filter(workspace_ids=[TWO]))
        await stream.caught_up("a")
        policy.change("ann", Scope(frozenset((TWO,))), tells=tells)
        if tells:
            await stream.until(lambda: "scope_changed" in stream["a"].said)
        new = await writer.commit(Change(workspace=ONE), Change(workspace=TWO), Change(workspace=THREE))
        await stream.until(lambda: stream["a"].through == 5)
        await stream.until(lambda: stream["b"].through == 5)
        assert stream["a"].sequences == [1, 2, new[1].sequence]
        assert stream["a"].said.count("caught_up") == 1, "the live edge was not lost"
        assert stream["a"].counts == [3, 2, 0]
        assert stream["b"].sequences == [new[1].sequence]
        assert "scope_changed" not in stream["b"].said


async def test_what_is_queued_of_a_lost_workspace_is_not_sent(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    policy = ruled()
    await writer.commit_each(Change(workspace=(ONE, TWO)[at % 2]) for at in range(3000))
    async with (
        serving(nats_server.url, ruled_by=policy, ring_entries=64) as address,
        raw_stream(address, "ann") as stream,
    ):
        request = pb.OpenSubscription(subscription_id="a", filter=BOTH, start=earliest())
        request.credit.messages = 10
        await stream.send(pb.SubscribeRequest(open=request))
        await stream.until(lambda: len(stream["a"].events) == 10)
        policy.change("ann", Scope(frozenset((TWO,))))
        await stream.until(lambda: "scope_changed" in stream["a"].said)
        grant = pb.CreditGrant(subscription_id="a", credit=pb.Credit(messages=5000))
        await stream.send(pb.SubscribeRequest(credit=grant))
        await writer.commit(Change(workspace=ONE), Change(workspace=TWO))
        await stream.until(lambda: stream["a"].through == 3002)
        assert stream["a"].sequences == [*range(1, 11), *range(12, 3001, 2), 3002]
        assert sum(stream["a"].counts) == 3002


async def test_losing_all_ends_it_and_a_cursor_goes_on_where_it_stood(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH)
        await stream.open("b", pb.Filter(workspace_ids=[TWO]))
        await stream.caught_up("a")
        policy.gate.clear()
        policy.change("ann", Scope(frozenset((TWO,))))
        policy.change("ann", Scope(frozenset()))
        held = await writer.commit(Change(workspace=ONE), Change(workspace=TWO))
        policy.gate.set()
        for name in ("a", "b"):
            error = (await stream.closed(name)).error
            assert error.code == codes.ERROR_CODE_PERMISSION_DENIED
            assert stream[name].said[-2:] == ["reset", "closed"]
            assert stream[name].events == []
        cursor = stream["a"].cursor
        policy.change("ann", Scope())
        await stream.open("a", BOTH, after(cursor))
        await stream.until(lambda: len(stream["a"].events) == 2)
        assert stream["a"].sequences == sequences(held)


async def test_reset_says_forbidden(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH)
        policy.change("ann", Scope(frozenset()))
        while (frame := await stream.read()).WhichOneof("response") != "reset":
            pass
        assert frame.reset.reason == pb.RESET_REASON_FORBIDDEN
        assert frame.reset.action == pb.RESET_ACTION_GIVE_UP


async def test_a_policy_that_fails_ends_what_it_was_asked_about_alone(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    policy = ruled()
    async with (
        serving(nats_server.url, ruled_by=policy) as address,
        raw_stream(address, "ann") as ann,
        raw_stream(address, "bob") as bob,
    ):
        await ann.open("a", BOTH)
        await ann.open("breaks", pb.Filter(entity_ids=["breaks"]), wait=False)
        assert (await ann.closed("breaks")).error.code == codes.ERROR_CODE_INTERNAL
        await bob.open("b")
        await bob.caught_up("b")
        policy.broken.add("bob")
        policy.change("bob")
        assert (await bob.closed("b")).error.code == codes.ERROR_CODE_INTERNAL
        await writer.commit(Change(workspace=ONE))
        await ann.until(lambda: ann["a"].events)
        policy.broken.clear()
        await bob.open("again")


async def test_the_end_of_the_authorization(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = ruled()
    policy.expire_in("ann", 2)
    async with (
        serving(nats_server.url, ruled_by=policy, auth_warning_s=1.5) as address,
        raw_stream(address, "ann") as stream,
        raw_stream(address, "bob") as other,
    ):
        await other.open("c")
        await stream.open("a", BOTH)
        await stream.until(lambda: expiries(stream))
        assert expiries(stream) == [int(policy.expires["ann"] * 1_000_000)]
        assert (await stream.closed("a")).error.code == codes.ERROR_CODE_UNAUTHENTICATED
        assert time.time() >= policy.expires["ann"]
        assert stream["a"].said[-1] == "closed"
        assert "reset" not in stream["a"].said
        await stream.open("b", BOTH, wait=False)
        assert (await stream.closed("b")).error.code == codes.ERROR_CODE_UNAUTHENTICATED
        del policy.expires["ann"]
        await reauth(stream, "Bearer ann")
        await stream.until(lambda: expiries(stream)[-1] == 0)
        await stream.open("b", BOTH)
        await writer.commit(Change(workspace=ONE), Change(workspace=THREE))
        await stream.until(lambda: stream["b"].events)
        await other.until(lambda: other["c"].events)


async def test_another_token_in_time(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = ruled()
    policy.expire_in("ann", 3)
    async with (
        serving(nats_server.url, ruled_by=policy, auth_warning_s=2.9) as address,
        raw_stream(address, "ann") as stream,
    ):
        await stream.open("a", BOTH)
        await stream.until(lambda: expiries(stream))
        policy.expire_in("ann", 1000)
        await reauth(stream, "ann")
        await stream.until(lambda: expiries(stream)[-1] == int(policy.expires["ann"] * 1_000_000))
        await writer.commit(Change(workspace=ONE))
        await stream.until(lambda: stream["a"].events)
        await reauth(stream, "eve")
        assert (await stream.closed("a")).error.code == codes.ERROR_CODE_UNAUTHENTICATED


async def test_another_caller_sees_what_both_may_see(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = ruled()
    policy.scopes["bob"] = Scope(frozenset((TWO, THREE)))
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH)
        await reauth(stream, "bob")
        await stream.until(lambda: "scope_changed" in stream["a"].said)
        await writer.commit(*(Change(workspace=each) for each in (ONE, TWO, THREE)))
        await stream.until(lambda: stream["a"].through == 3)
        assert stream["a"].sequences == [2]
        assert policy.watching == 1
    await eventually(lambda: policy.watching == 0)


async def test_without_a_policy_any_token_is_good(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await reauth(stream, "whatever")
        await stream.until(lambda: expiries(stream) == [0])
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].events)


async def test_a_policy_whose_version_never_settles_ends_the_subscription(
    nats_server: NatsServer, writer: StreamWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH)
        count = iter(range(1, 10_000_000))
        monkeypatch.setattr(policy, "version", lambda _: next(count))
        await writer.commit(Change(workspace=ONE, verb=fmt.UPDATED))
        assert (await stream.closed("a")).error.code == codes.ERROR_CODE_INTERNAL
        assert next(count) < access._MOST_ROUNDS * 3


async def test_a_subscription_that_is_refused_while_permissions_change_still_says_so(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", BOTH)
        policy.gate.clear()
        await stream.open("bad", BOTH, after(b"no cursor"), wait=False)
        await eventually(lambda: policy.questions == 2)
        policy.change("ann", tells=False)
        policy.gate.set()
        assert (await stream.closed("bad")).error.code == codes.ERROR_CODE_INVALID_ARGUMENT
