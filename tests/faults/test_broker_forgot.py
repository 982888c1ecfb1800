"""Killed between storing and confirming, and back when the broker has forgotten every id.

A bridge that leaned on the broker's deduplication would repeat itself then. Ours reads the stream's end instead.
"""

from __future__ import annotations

import json
from pathlib import Path

from nats.aio.client import Client

from tests.fixtures.stream_reader import confirmed_lsn
from zephyr.verify.field import SLOT, Field, open_field
from zephyr.verify.proxy import Mode
from zephyr.verify.stored import STREAM, last_sequence, read
from zephyr.verify.wait import until

WINDOW_S = 0.5
PROBE = "zephyr._mark.0.probe"
ID = "Nats-Msg-Id"


async def test_killed_before_confirming_and_back_after_twice_the_window(tmp_path: Path) -> None:
    # Marks come seldom, so that it is the rows that are on their way.
    settings = {"ZEPHYR_BRIDGE_MARK_INTERVAL_S": "2"}
    async with open_field(tmp_path, {"fsync": "off"}, **settings) as field, field.client() as client:
        await shorten_the_window(client)
        # One event by itself, and a transaction that is stored in runs.
        for round_, rows in enumerate((1, 5000)):
            commit_lsn = await stored_and_killed(field, client, rows)
            # Postgres sends it again.
            assert confirmed_lsn(field.postgres.dsn, SLOT) <= commit_lsn
            for number in range(2):
                await forgets(client, f"{round_} {number}")
            field.proxy.set(Mode.PASS)
            await field.bridge.start()
            # What it reads again it knows: the transaction is whole, and once.
            verdict = await field.verdict()
            assert verdict.holds, verdict
            assert verdict.events > rows
        jetstream = client.jetstream()
        for sequence in range(1, 40):
            message = await jetstream.get_msg(STREAM, sequence)
            assert message.subject == PROBE or ID not in (message.headers or {})


async def shorten_the_window(client: Client) -> None:
    """By the API's own JSON, so that no other setting of the stream changes."""
    config = json.loads((await client.request(f"$JS.API.STREAM.INFO.{STREAM}")).data)["config"]
    wanted = json.dumps({**config, "duplicate_window": int(WINDOW_S * 1e9)}).encode()
    answer = json.loads((await client.request(f"$JS.API.STREAM.UPDATE.{STREAM}", wanted)).data)
    assert answer["config"]["duplicate_window"] == int(WINDOW_S * 1e9), answer


async def stored_and_killed(field: Field, client: Client, rows: int) -> int:
    """Commits so many rows, and kills the bridge when some are stored and it has not learnt of it.

    Gives the commit LSN.
    """
    while True:
        before = [each async for each in read(client)]
        sequence, dropped, term = await last_sequence(client), field.proxy.dropped_bytes, field.bridge.term
        field.proxy.set(Mode.DROP_ANSWERS)
        async with field.database() as connection:
            await connection.execute(
                "INSERT INTO users (email) SELECT gen_random_uuid()::text FROM generate_series(1, %s)",
                (rows,),
            )

        async def is_so(sequence: int = sequence, dropped: int = dropped) -> bool:
            return await last_sequence(client) > sequence and field.proxy.dropped_bytes > dropped

        await until(is_so, "something is stored and its acknowledgement thrown away")
        stored = [each async for each in read(client)]
        if len(stored) > len(before):
            field.kill_bridge()
            return stored[len(before)].lsn
        # It was a mark, and the rows wait behind it: once more, when they are stored.
        field.proxy.set(Mode.PASS)
        await field.bridge.streams(term)
        await field.caught_up()


async def forgets(client: Client, name: str) -> None:
    """Waits until the broker takes a message again whose id it has seen after all that was stored so far."""
    jetstream = client.jetstream()
    assert not (await jetstream.publish(PROBE, b"", headers={ID: name})).duplicate

    async def takes_it_again() -> bool:
        return not (await jetstream.publish(PROBE, b"", headers={ID: name})).duplicate

    await until(takes_it_again, "the broker forgets an id")
