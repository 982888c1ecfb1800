"""What a subscription asks for, and what cannot be asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from protos.events.v1 import stream_pb2 as pb
from realtime.client import (
    Client,
    CreditWindow,
    MemoryCursorStore,
    at_time,
    snapshot,
)
from realtime.errors import (
    ArgumentInvalid,
)
from tests.fixtures.scripted_server import ScriptedCall, scripted


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


async def test_credentials_go_to_the_channel() -> None:
    async def script(call: ScriptedCall) -> None:
        await call.ready()
        await call.hold()

    async with (
        scripted(script, credentials=grpc.local_server_credentials()) as server,
        Client(server.address, credentials=grpc.local_channel_credentials(), token="abc") as client,
    ):
        await client.subscribe().ready()
        (call,) = server.calls
        assert call.metadata["authorization"] == "Bearer abc"
        assert call.security == [b"local"]


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
