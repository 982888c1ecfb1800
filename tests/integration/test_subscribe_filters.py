"""Which events reach whom on a real broker: filters, users by their memberships, truncations."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from tests.fixtures.raw_stream import earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

SMALL = {"ring_entries": 64}


async def test_each_filter_gets_its_own(nats_server: NatsServer, writer: StreamWriter) -> None:
    one, two, entity = new_id(), new_id(), new_id()
    changes = [
        Change(workspace=one),
        Change(workspace=two),
        Change(workspace=one, kind="workspace", entity=one),
        Change(workspace=two, entity=entity),
        Change(workspace=two, entity=entity, verb=fmt.UPDATED),
        Change(kind="user"),
    ]
    filters = {
        "one": pb.Filter(workspace_ids=[one]),
        "notes": pb.Filter(kinds=["note"]),
        "entity": pb.Filter(entity_ids=[entity.upper()]),
        "both": pb.Filter(workspace_ids=[one, two], kinds=["note"]),
        "none": pb.Filter(workspace_ids=[new_id()]),
    }
    wanted = {"one": [0, 2], "notes": [0, 1, 3, 4], "entity": [3, 4], "both": [0, 1, 3, 4], "none": []}
    old = await writer.commit(*changes)
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for name, each in filters.items():
            await stream.open(name, each, earliest())
        for name in filters:
            await stream.caught_up(name)
        new = await writer.commit(*changes)
        for name, indexes in wanted.items():
            expected = [stored[at].sequence for stored in (old, new) for at in indexes]
            await stream.until(lambda name=name, e=expected: len(stream[name].events) >= len(e))  # type: ignore[misc]
            assert stream[name].sequences == expected, name
        await stream.ask_progress("none")
        assert stream["none"].counts == [0, 12, 0]
        assert stream["none"].through == 12


async def test_users_reach_the_workspaces_of_their_memberships(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    workspace, user, membership = new_id(), new_id(), new_id()
    updated = Change(kind="user", entity=user, verb=fmt.UPDATED)
    joined = Change(kind="membership", workspace=workspace, entity=membership, user=user)
    left = Change(kind="membership", workspace=workspace, entity=membership, user=user, verb=fmt.DELETED)
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("w", pb.Filter(workspace_ids=[workspace], kinds=["user"]))
        await stream.caught_up("w")
        stored = await writer.commit_each([updated, joined, updated, left, updated])
        in_one = await writer.commit(joined, updated)
        await stream.until(lambda: len(stream["w"].events) == 2)
        assert stream["w"].sequences == [stored[2].sequence, in_one[1].sequence]


async def test_memberships_that_ended_before_the_server_began_still_count(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    workspace, user, membership = new_id(), new_id(), new_id()
    stored = await writer.commit_each(
        [
            Change(kind="membership", workspace=workspace, entity=membership, user=user),
            Change(kind="user", entity=user, verb=fmt.UPDATED),
            Change(kind="membership", workspace=workspace, entity=membership, user=user, verb=fmt.DELETED),
            Change(kind="user", entity=user, verb=fmt.UPDATED),
            *(Change() for _ in range(100)),
        ]
    )
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("w", pb.Filter(workspace_ids=[workspace], kinds=["user"]), earliest())
        await stream.caught_up("w")
        assert stream["w"].sequences == [stored[1].sequence]


async def test_truncate_reaches_all_of_its_kind(nats_server: NatsServer, writer: StreamWriter) -> None:
    wanted = [
        pb.Filter(workspace_ids=[new_id()]),
        pb.Filter(workspace_ids=[new_id()], kinds=["note"], entity_ids=[new_id()]),
        pb.Filter(kinds=["note", "user"]),
        pb.Filter(kinds=["user"]),
    ]
    truncated = Change(entity=fmt.NONE, verb=fmt.TRUNCATED)
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for at, each in enumerate(wanted):
            await stream.open(str(at), each)
        stored = await writer.commit(truncated)
        for name in "012":
            await stream.until(lambda name=name: stream[name].events)  # type: ignore[misc]
        await stream.ask_progress("3")
        assert [stream[str(at)].sequences for at in range(4)] == [sequences(stored)] * 3 + [[]]
        await stream.open("again", wanted[1], earliest())
        await stream.caught_up("again")
        assert stream["again"].sequences == sequences(stored)


async def test_verbs_and_changed_fields(nats_server: NatsServer, writer: StreamWriter) -> None:
    changes = [
        Change(),
        Change(verb=fmt.UPDATED, changed="title,version"),
        Change(verb=fmt.UPDATED, changed="body"),
        Change(verb=fmt.UPDATED),
        Change(verb=fmt.DELETED),
        Change(entity=fmt.NONE, verb=fmt.TRUNCATED),
    ]
    filters = {
        "title": pb.Filter(changed_fields=["title"]),
        "title or body": pb.Filter(changed_fields=["title", "body"]),
        "updates of title": pb.Filter(kinds=["note"], verbs=["updated"], changed_fields=["title"]),
        "deleted": pb.Filter(verbs=["deleted"]),
        "domain": pb.Filter(verbs=["archived"]),
    }
    wanted = {
        "title": [0, 1, 4, 5],
        "title or body": [0, 1, 2, 4, 5],
        "updates of title": [1, 5],
        "deleted": [4, 5],
        "domain": [5],
    }
    old = await writer.commit(*changes)
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        for name, each in filters.items():
            await stream.open(name, each, earliest())
            await stream.caught_up(name)
        new = await writer.commit(*changes)
        for name, indexes in wanted.items():
            await stream.until(lambda name=name: stream[name].through == 12)  # type: ignore[misc]
            assert stream[name].sequences == [stored[at].sequence for stored in (old, new) for at in indexes]
            assert stream[name].counts == [len(indexes) * 2, 12 - len(indexes) * 2, 0]
