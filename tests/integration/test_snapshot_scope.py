"""A snapshot whose caller loses a workspace while it is made."""

from __future__ import annotations

import psycopg

from bridge.settings import BridgeSettings
from protos.events.v1 import stream_pb2 as pb
from realtime.auth import Scope
from tests.fixtures.bridge import running
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.raw_stream import raw_stream, snapshot
from tests.fixtures.realtime_server import serving
from tests.fixtures.snapshot_kit import FILL, whole


async def test_it_is_begun_anew_with_what_is_left(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
        one, two = (str(row[0]) for row in connection.execute("SELECT id FROM workspaces LIMIT 2"))
    policy = RuledPolicy(ann=Scope(frozenset((one, two))))
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url, postgres_dsn=dsn, ruled_by=policy) as address,
        raw_stream(address, "ann") as stream,
    ):
        # So little credit that the scan waits for it.
        request = pb.Filter(workspace_ids=[one, two], kinds=["note"])
        await stream.open("a", request, snapshot(10), credit=pb.Credit(messages=20))
        await stream.until(lambda: len(stream["a"].items) == 20)
        policy.change("ann", Scope(frozenset((two,))))
        await stream.until(lambda: "reset" in stream["a"].said)
        before = len(stream["a"].items)
        await stream.send(
            pb.SubscribeRequest(credit=pb.CreditGrant(subscription_id="a", credit=pb.Credit(messages=10_000)))
        )
        await whole(stream, "a")
        account = stream["a"]
        assert account.resets[-1].reason == pb.RESET_REASON_FORBIDDEN
        assert account.resets[-1].action == pb.RESET_ACTION_AWAIT_SNAPSHOT
        assert "scope_changed" in account.said
        left = account.items if len(account.items) < before else account.items[-500:]
        assert {item.event.workspace_id for item in left} == {two}
        assert len({item.event.subject for item in left}) == 500
