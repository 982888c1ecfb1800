"""The client with callers that may see a part, tokens that end, and filters of verbs and changed fields."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.client import Client, ReceivedEvent, ScopeChanged, earliest
from realtime.errors import RealtimeError
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

auth: Any = pytest.importorskip("realtime.auth")
policy: Any = pytest.importorskip("tests.fixtures.policy")
server: Any = serving


async def test_a_token_is_renewed_on_the_stream_before_it_ends(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    rules = policy.RuledPolicy(first=auth.Scope(), second=auth.Scope())
    rules.expire_in("first", 3)
    tokens = ["second", "first"]

    async def provider() -> str:
        return tokens.pop()

    async with (
        server(nats_server.url, rules, auth_warning_s=2) as address,
        Client(address, token=provider) as client,
        client.subscribe() as subscription,
    ):
        await subscription.ready()
        await eventually(lambda: not tokens and len(rules._watching["second"]) == 1)
        assert not rules._watching["first"]
        (stored,) = await writer.commit(Change())
        async for event in subscription:
            assert event.sequence == stored.sequence
            break
        assert subscription.reconnections == 0


async def test_who_is_not_known_is_refused(nats_server: NatsServer, writer: StreamWriter) -> None:
    rules = policy.RuledPolicy(known=auth.Scope())
    async with server(nats_server.url, rules) as address:
        for token in (None, "stranger"):
            async with Client(address, token=token) as client:
                with pytest.raises(RealtimeError, match="nobody has the token"):
                    await client.subscribe().ready()
                with pytest.raises(RealtimeError, match="nobody has the token"):
                    await client.get_note(new_id())
        async with Client(address, token="known") as client:
            await client.subscribe().ready()


async def test_a_workspace_that_is_lost_is_said_and_the_rest_goes_on(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    kept, lost = new_id(), new_id()
    rules = policy.RuledPolicy(a=auth.Scope(workspaces=frozenset((kept, lost))))
    async with (
        server(nats_server.url, rules) as address,
        Client(address, token="a") as client,
        client.subscribe(workspaces=[kept, lost], signals=True) as subscription,
    ):
        await subscription.ready()
        rules.change("a", auth.Scope(workspaces=frozenset((kept,))))
        async with asyncio.timeout(15):
            async for item in subscription:
                if isinstance(item, ScopeChanged):
                    assert item.lost_workspaces == (lost,)
                    break
        assert subscription.lost_workspaces == {lost}
        stored = await writer.commit(Change(workspace=lost), Change(workspace=kept))
        async with asyncio.timeout(15):
            async for item in subscription:
                if isinstance(item, ReceivedEvent):
                    assert item.sequence == stored[1].sequence
                    break


async def test_verbs(nats_server: NatsServer, writer: StreamWriter) -> None:
    stored = await writer.commit(Change(), Change(verb="updated"), Change(verb="deleted"))
    async with (
        server(nats_server.url) as address,
        Client(address) as client,
        client.subscribe(start=earliest(), verbs=["deleted"]) as subscription,
    ):
        async for event in subscription:
            assert event.sequence == stored[2].sequence
            break
