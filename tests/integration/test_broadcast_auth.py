"""What a caller may see and may say holds for broadcasts, too."""

from __future__ import annotations

import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from protos.events.v1.publish_pb2 import NewEvent
from realtime.auth import Scope
from realtime.errors import PermissionDenied, RequestError, Unauthenticated
from tests.fixtures.broadcasts import broadcast, typing
from tests.fixtures.eventually import eventually
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.raw_stream import Account, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

ONE, TWO, THREE = new_id(), new_id(), new_id()


def ruled() -> RuledPolicy:
    return RuledPolicy(
        ann=Scope(frozenset((ONE, TWO))),
        bob=Scope(frozenset((THREE,)), frozenset(("note",))),
        root=Scope(),
    )


def workspaces(account: Account) -> list[str]:
    return [event.workspace_id for event in account.broadcasts]


async def test_who_may_broadcast(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy, user = ruled(), new_id()
    await writer.commit(Change("membership", THREE, user=user))
    of_user = NewEvent(workspace_id=fmt.NONE, kind="user", entity_id=user, verb="seen")
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "root") as stream:
        await stream.open("a", broadcasts=True)
        with pytest.raises(Unauthenticated, match="eve"):
            await broadcast(address, typing(ONE), "eve")
        for event, token in (
            (typing(ONE), "bob"),
            (typing(THREE), "ann"),
            (typing(fmt.NONE), "ann"),
            (NewEvent(workspace_id=THREE, kind="workspace", entity_id=THREE, verb="seen"), "bob"),
            (of_user, "ann"),
        ):
            with pytest.raises(PermissionDenied):
                await broadcast(address, event, token)
        policy.broken.add("bob")
        with pytest.raises(RequestError) as caught:
            await broadcast(address, typing(THREE), "bob")
        assert caught.value.code == codes.ERROR_CODE_INTERNAL
        policy.scopes["dan"] = Scope(frozenset((THREE,)))
        await broadcast(address, of_user, "dan")
        await broadcast(address, typing(ONE), "ann")
        await broadcast(address, typing(fmt.NONE), "root")
        await stream.until(lambda: len(stream["a"].broadcasts) == 3)
        assert [event.actor for event in stream["a"].broadcasts] == ["dan", "ann", "root"]


@pytest.mark.parametrize("tells", [True, False])
async def test_a_workspace_that_is_lost_while_it_listens(
    nats_server: NatsServer, writer: StreamWriter, tells: bool
) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("all", broadcasts=True)
        await stream.open("both", pb.Filter(workspace_ids=[ONE, TWO]), broadcasts=True)
        for workspace in (ONE, TWO, THREE):
            await broadcast(address, typing(workspace), "root")
        for name in ("all", "both"):
            await stream.until(lambda n=name: len(workspaces(stream[n])) == 2)  # type: ignore[misc]
        policy.change("ann", Scope(frozenset((TWO,))), tells=tells)
        for workspace in (ONE, TWO, THREE, TWO):
            await broadcast(address, typing(workspace), "root")
        for name in ("all", "both"):
            await stream.until(lambda n=name: len(workspaces(stream[n])) == 4)  # type: ignore[misc]
            assert workspaces(stream[name]) == [ONE, TWO, TWO, TWO]
            assert stream[name].dropped == 0, "what may not be seen was not missed"


async def test_what_waits_while_the_policy_is_asked(nats_server: NatsServer, writer: StreamWriter) -> None:
    """Nothing is sent before the answer, and after it what may still be seen."""
    policy = ruled()
    async with (
        serving(nats_server.url, ruled_by=policy) as address,
        raw_stream(address, "ann") as stream,
        raw_stream(address, "root") as other,
    ):
        await stream.open("a", broadcasts=True)
        await other.open("b", broadcasts=True)
        policy.gate.clear()
        asked = policy.questions
        policy.change("ann", Scope(frozenset((TWO,))))
        await eventually(lambda: policy.questions > asked)
        for workspace in (ONE, TWO):  # past the server, whose own question would wait as well
            await writer.connection.publish(
                fmt.live_subject(workspace, "note", "n"),
                Event(type="note.typing", workspace_id=workspace).SerializeToString(),
                headers={fmt.VERB: "typing"},
            )
        await other.until(lambda: workspaces(other["b"]) == [ONE, TWO])
        policy.gate.set()
        await stream.until(lambda: workspaces(stream["a"]))
        assert workspaces(stream["a"]) == [TWO]


async def test_when_all_is_lost_nothing_follows(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = ruled()
    async with serving(nats_server.url, ruled_by=policy) as address, raw_stream(address, "ann") as stream:
        await stream.open("a", pb.Filter(workspace_ids=[ONE]), broadcasts=True)
        policy.change("ann", Scope(frozenset((TWO,))), tells=False)
        await broadcast(address, typing(ONE), "root")
        closed = await stream.closed("a")
        assert closed.error.code == codes.ERROR_CODE_PERMISSION_DENIED
        assert not stream["a"].broadcasts
