"""What happens to the bridge and between it and NATS. Each leaves the bridge streaming again.

A fault is a coroutine of a field and a source of chance. Moments are drawn, and what must be
seen before the next step is waited for.
"""

from __future__ import annotations

import asyncio
import json
import random

from nats.aio.client import Client

from zephyr.verify.field import Field
from zephyr.verify.proxy import Mode
from zephyr.verify.stored import STREAM, last_sequence
from zephyr.verify.wait import NotWithin, until

DEDUPLICATION_S = 0.1
"""The shortest window that NATS takes; see ``killed_before_confirming``."""


async def bridge_killed(field: Field, chance: random.Random) -> None:
    """SIGKILL at a random moment, now and then while it is still starting."""
    await field.more(chance.randint(1, 20))
    await asyncio.sleep(chance.uniform(0, 0.05))
    field.kill_bridge()
    if chance.random() < 0.3:
        field.bridge.spawn()
        await asyncio.sleep(chance.uniform(0.1, 1.2))
        field.kill_bridge()
    await field.bridge.start()


async def killed_before_confirming(field: Field, chance: random.Random) -> None:
    """What it sent is stored and it does not learn of it; killed, and back after the broker forgot the ids."""
    async with field.client() as client:
        await _shorten_deduplication(client)
        await _drop_answers(field, client)
        field.kill_bridge()
        await asyncio.sleep(2 * DEDUPLICATION_S)
    field.proxy.set(Mode.PASS)
    await field.bridge.start()
    await field.more(chance.randint(1, 10))


async def cut_off(field: Field, chance: random.Random) -> None:
    """No way to NATS, by refusal or by silence, longer than it waits for an acknowledgement."""
    term = field.bridge.term
    field.proxy.set(chance.choice((Mode.CUT, Mode.BLACKHOLE)))
    await _term_ends(field, term)
    await asyncio.sleep(chance.uniform(0, 1.5))
    field.proxy.set(Mode.CUT)  # what a black hole holds goes as well, at times
    field.proxy.set(Mode.PASS)
    await field.bridge.streams(term)


async def answers_dropped(field: Field, chance: random.Random) -> None:
    """Messages arrive, acknowledgements do not, until it gives the term up."""
    term = field.bridge.term
    async with field.client() as client:
        await _drop_answers(field, client)
    await _term_ends(field, term)
    field.proxy.set(Mode.PASS)
    await field.bridge.streams(term)
    await field.more(chance.randint(1, 10))


async def delayed(field: Field, chance: random.Random) -> None:
    """Everything takes longer in both directions, which only has to be slow."""
    field.proxy.delay_s = chance.uniform(0.002, 0.03)
    field.proxy.set(Mode.DELAY)
    await field.more(chance.randint(5, 20))
    field.proxy.set(Mode.PASS)
    await field.more(1)


async def adjacent_commits(field: Field, chance: random.Random) -> None:
    """Two commits side by side; the first is stored and acknowledged, the second never sent; killed."""
    field.bridge.freeze()
    await _write_adjacent(field)
    rows = chance.randint(1, 3)
    async with field.client() as client:
        before = await last_sequence(client)
        field.proxy.set(Mode.FIRST_ROWS, rows)
        field.bridge.thaw()

        async def is_stored() -> bool:
            return field.proxy.rows_left == 0 and await last_sequence(client) > before

        try:
            await until(is_stored, "the first commit is stored", 3)
        except NotWithin:
            # With a domain event in it a unit is one batch: cut off, nothing of it is stored.
            if field.proxy.rows_left:
                raise
        await asyncio.sleep(chance.uniform(0, 0.1))
    field.kill_bridge()
    field.proxy.set(Mode.PASS)
    await field.bridge.start()


async def bridge_frozen(field: Field, chance: random.Random) -> None:
    """Frozen until the server drops its session; a second one takes over; thawed, the first stores nothing."""
    zombie, heir = field.bridge, field.spare
    zombie.freeze()
    try:
        heir.spawn()
        await heir.streams()
        await field.more(chance.randint(1, 10))
        zombie.thaw()

        async def has_noticed() -> bool:
            return zombie.exit_code is not None or zombie.term == 0

        await until(has_noticed, "the thawed bridge notices that it was replaced")
    finally:
        zombie.kill()
    field.bridge, field.spare = heir, zombie
    await field.more(1)


async def poison_row(field: Field, chance: random.Random) -> None:
    """A row that cannot become an event stands among good ones: it leaves a marker, and they pass."""
    async with field.database() as connection:
        await connection.execute("ALTER TABLE notes DROP CONSTRAINT IF EXISTS notes_metadata_check")
        await connection.execute(
            "WITH w AS (SELECT id FROM workspaces ORDER BY id LIMIT 1)"
            " INSERT INTO notes (workspace_id, title, metadata)"
            " SELECT id, 'poison ' || n, CASE WHEN mod(n, 3) = 1 THEN '[1]'::jsonb ELSE '{}' END"
            " FROM w, generate_series(0, %s) AS n",
            (chance.randint(2, 8),),
        )
    await field.more(chance.randint(1, 10))


async def _write_adjacent(field: Field) -> None:
    async with field.database() as connection:
        insert = "INSERT INTO users (email) VALUES (gen_random_uuid()::text)"
        await connection.execute(f"BEGIN; {insert}; COMMIT; BEGIN; {insert}; {insert}; COMMIT".encode())


async def _drop_answers(field: Field, client: Client) -> None:
    """Waits until NATS stored something whose acknowledgement was thrown away."""
    # Asked before: what is under way may be the last thing that the bridge sends.
    term = field.bridge.term
    sequence, dropped = await last_sequence(client), field.proxy.dropped_bytes
    field.proxy.set(Mode.DROP_ANSWERS)

    async def is_so() -> bool:
        if field.proxy.dropped_bytes == dropped:
            return False
        # Or it was stored just before it was asked for, and its acknowledgement still under way: the term ends of that.
        return await last_sequence(client) > sequence or field.bridge.term != term

    await until(is_so, "an event is stored and its acknowledgement thrown away")


async def _term_ends(field: Field, term: int) -> None:
    async def has_ended() -> bool:
        return field.bridge.term != term or field.bridge.exit_code is not None

    await until(has_ended, "the bridge notices that NATS does not answer")


async def _shorten_deduplication(client: Client) -> None:
    """By the API's own JSON, so that no other setting of the stream changes."""
    answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{STREAM}", timeout=5)).data)
    wanted = int(DEDUPLICATION_S * 1e9)
    if answer["config"].get("duplicate_window") != wanted:
        config = json.dumps({**answer["config"], "duplicate_window": wanted}).encode()
        answer = json.loads((await client.request(f"$JS.API.STREAM.UPDATE.{STREAM}", config, timeout=5)).data)
        if "error" in answer:
            raise RuntimeError(f"the stream's deduplication window stays: {answer['error']}")
