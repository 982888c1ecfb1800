"""What an event has of the row before, by the table's replica identity, on a real server."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from bridge.errors import EventRejected, MappingMismatch
from bridge.fit import check_fit
from tests.fixtures.type_messages import Thing
from tests.fixtures.wal_events import tap, things
from tests.integration.bridge_command import execute

LARGE = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n)"
SMALL = "CREATE TABLE things (id int PRIMARY KEY, code int NOT NULL UNIQUE, n int, UNIQUE (id, code))"


async def test_full(postgres_dsn: str, slot_name: str, tmp_path: Path) -> None:
    execute(
        postgres_dsn,
        "CREATE TABLE things (id text PRIMARY KEY, text text, n int, numbers bigint[])",
        "ALTER TABLE things REPLICA IDENTITY FULL",
        "ALTER TABLE things ALTER numbers SET STORAGE EXTERNAL",
        f"INSERT INTO things VALUES ('a', {LARGE}, 1, (SELECT array_agg(n) FROM generate_series(1, 5000) n))",
    )
    mapping = things(tmp_path, 'text = "text", n = "number", numbers = "numbers", id = "id"')
    text = _text(postgres_dsn)
    before, after = (Thing(id=key, text=text, number=2, numbers=range(1, 5001)) for key in ("a", "b"))
    async with tap(postgres_dsn, slot_name, mapping) as opened:
        execute(
            postgres_dsn,
            "UPDATE things SET n = 2",
            "UPDATE things SET id = 'b'",
            "UPDATE things SET text = NULL, n = NULL",
            "DELETE FROM things",
        )
        seen = await opened.events()
    assert [each.verb for each in seen] == ["updated", "deleted", "created", "updated", "deleted"]
    assert list(seen[0].event.changed) == ["number"]
    assert seen[0].thing == seen[1].thing == before
    assert seen[2].thing == after
    assert list(seen[3].event.changed) == ["text", "number"]
    assert seen[3].thing == seen[4].thing == Thing(id="b", numbers=range(1, 5001))


@pytest.mark.parametrize("identity", ["DEFAULT", "USING INDEX things_id_code_key"])
async def test_a_narrow_identity(postgres_dsn: str, slot_name: str, tmp_path: Path, identity: str) -> None:
    execute(
        postgres_dsn,
        SMALL,
        f"ALTER TABLE things REPLICA IDENTITY {identity}",
        "INSERT INTO things VALUES (1, 1, 1)",
    )
    async with tap(postgres_dsn, slot_name, things(tmp_path, 'n = "number"')) as opened:
        execute(
            postgres_dsn,
            "UPDATE things SET n = n",
            "UPDATE things SET id = 2",
            "DELETE FROM things",
        )
        seen = await opened.events()
    # Old values are not known: each update counts as a change of them, and a delete lacks them.
    assert [(each.verb, each.entity, list(each.event.changed)) for each in seen] == [
        ("updated", "1", ["number"]),
        ("deleted", "1", []),
        ("created", "2", []),
        ("deleted", "2", []),
    ]
    assert [each.thing.number for each in seen] == [1, 0, 1, 0]


@pytest.mark.parametrize("identity", ["NOTHING", "USING INDEX things_code_key"])
async def test_an_identity_without_the_key(postgres_dsn: str, tmp_path: Path, identity: str) -> None:
    execute(postgres_dsn, SMALL, f"ALTER TABLE things REPLICA IDENTITY {identity}")
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        mapping = things(tmp_path, 'n = "number"')
        with pytest.raises(MappingMismatch) as raised:
            await check_fit(connection, mapping)
        (line,) = raised.value.mismatches
        assert line.startswith(
            f"public.things: replica identity is {' '.join(identity.split()[:2])}, and the WAL"
        )
        assert "leaves out the old id; run: ALTER TABLE public.things REPLICA IDENTITY FULL" in line
        execute(postgres_dsn, line.partition("run: ")[2])
        await check_fit(connection, mapping)


async def test_an_identity_that_is_narrowed_while_it_streams(
    postgres_dsn: str, slot_name: str, tmp_path: Path
) -> None:
    execute(
        postgres_dsn,
        "CREATE TABLE things (id text PRIMARY KEY, text text, n int)",
        "ALTER TABLE things REPLICA IDENTITY FULL",
        f"INSERT INTO things VALUES ('a', {LARGE}, 1)",
    )
    async with tap(postgres_dsn, slot_name, things(tmp_path, 'text = "text", n = "number"')) as opened:
        execute(
            postgres_dsn,
            "UPDATE things SET n = 2",
            "ALTER TABLE things REPLICA IDENTITY DEFAULT",
            "UPDATE things SET text = text || 'x'",
            "ALTER TABLE things REPLICA IDENTITY FULL",
            "UPDATE things SET n = 3",
        )
        seen = await opened.events()
        # Each row by the identity that it was written under.
        assert [list(each.event.changed) for each in seen] == [["number"], ["text", "number"], ["number"]]
        execute(
            postgres_dsn,
            "ALTER TABLE things REPLICA IDENTITY DEFAULT",
            "UPDATE things SET n = 4",
        )
        with pytest.raises(EventRejected, match="the WAL leaves out the unchanged value of text"):
            await opened.events()
        assert opened.relations[-1].replica_identity == "d"


def _text(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT text FROM things").fetchone()
    assert row is not None
    return str(row[0])
