"""ReadService asks the same policy as the streams: whose notes and users a caller may read."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from protos.events.v1 import read_pb2, read_pb2_grpc
from realtime.auth import Policy, Scope
from realtime.auth.read_access import ReadAccess
from realtime.errors import NotFound, PermissionDenied, RealtimeError, Unauthenticated
from realtime.filters import Filter
from realtime.status import from_rpc_error
from tests.fixtures.eventually import eventually
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer
from zephyr.stack.valkey import ValkeyServer

ONE, TWO = new_id(), new_id()


def ruled() -> RuledPolicy:
    return RuledPolicy(
        ann=Scope(frozenset((ONE,))), bob=Scope(frozenset((TWO,)), frozenset(("note",))), root=Scope()
    )


async def test_notes_and_users_of_ones_own_workspaces(
    nats_server: NatsServer, writer: StreamWriter, own_valkey: ValkeyServer
) -> None:
    note, user = new_id(), new_id()
    await writer.commit(
        Change(workspace=ONE, entity=note),
        Change("user", entity=user),
        Change("membership", workspace=ONE, user=user),
    )
    async with (
        serving(nats_server.url, ruled_by=ruled(), redis_url=own_valkey.url) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = read_pb2_grpc.ReadServiceStub(channel)

        async def code_of(token: str, method: Any, request: object) -> type[RealtimeError] | None:
            try:
                await method(request, metadata=(("authorization", f"Bearer {token}"),), timeout=10)
            except grpc.aio.AioRpcError as exc:
                return type(from_rpc_error(exc))
            return None

        get_note, get_user = read_pb2.GetNoteRequest(id=note), read_pb2.GetUserRequest(id=user)

        async def is_there() -> bool:
            return await code_of("root", stub.GetUser, get_user) is None

        await eventually(is_there)
        expected = {
            "ann": (None, None),
            "root": (None, None),
            "bob": (NotFound, PermissionDenied),
            "eve": (Unauthenticated, Unauthenticated),
        }
        for token, (of_note, of_user) in expected.items():
            assert await code_of(token, stub.GetNote, get_note) is of_note, token
            assert await code_of(token, stub.GetUser, get_user) is of_user, token


async def test_the_filter_of_a_list_is_narrowed() -> None:
    policy: Policy = ruled()
    access = ReadAccess(policy, lambda _: ())
    ann = (("authorization", "bearer ann"),)
    assert await access.narrow(ann, Filter()) == Filter(frozenset((ONE,)))
    assert await access.narrow(ann, Filter(frozenset((ONE, TWO)))) == Filter(frozenset((ONE,)))
    with pytest.raises(PermissionDenied):
        await access.narrow(ann, Filter(frozenset((TWO,))))
    assert isinstance(policy, RuledPolicy)
    policy.expires["ann"] = time.time() - 1
    with pytest.raises(Unauthenticated):
        await access.narrow(ann, Filter())
