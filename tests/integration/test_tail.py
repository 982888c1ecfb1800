"""``zephyr tail`` as a process, as people and scripts run it."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from bridge.settings import BridgeSettings
from realtime.client import Client
from tests.fixtures.bridge import running
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter
from zephyr.stack.nats import NatsServer

LISTENING = b"listening"


@pytest.fixture
async def target(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[str]:
    async with serving(nats_server.url) as address:
        yield address


async def start(target: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zephyr", "tail", "--target", target, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def listening(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        line = await process.stderr.readline()
    assert LISTENING in line, line


async def run(target: str, *words: str) -> tuple[int, str, str]:
    process = await start(target, *words)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_json_lines_and_the_cursor_to_go_on_after(target: str, writer: StreamWriter) -> None:
    stored = await writer.commit(*(Change() for _ in range(3)))
    stored += await writer.commit(*(Change() for _ in range(4)))
    code, out, _ = await run(target, "--earliest", "--json", "-n", "2")
    *first, last = map(json.loads, out.splitlines())
    assert code == 0
    assert last == {"cursor": first[-1]["cursor"]}
    code, out, _ = await run(target, "--json", "--after", last["cursor"], "-n", "5", "--kind", "note")
    *rest, last = map(json.loads, out.splitlines())
    assert code == 0
    lines = first + rest
    assert [line["event"]["id"] for line in lines] == [item.id for item in stored]
    assert [int(line["sequence"]) for line in lines] == list(range(1, 8))
    assert lines[0]["event"]["type"] == "note.created"
    assert last == {"cursor": lines[-1]["cursor"]}


async def test_a_field_mask_leaves_the_rest_out(target: str, writer: StreamWriter) -> None:
    (stored,) = await writer.commit(Change(size=10))
    _, out, _ = await run(target, "--earliest", "--json", "-n", "1", "--field", "id")
    event = json.loads(out.splitlines()[0])["event"]
    assert stored.change is not None
    assert event["note"] == {"id": stored.change.entity}
    assert event["subject"] == stored.change.entity


async def test_it_begins_at_a_time(target: str, writer: StreamWriter) -> None:
    stored = await writer.commit(Change(), Change())
    since = (datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None).isoformat()
    code, out, _ = await run(target, "--since", since, "--json", "-n", "2")
    assert code == 0
    assert [json.loads(line)["event"]["id"] for line in out.splitlines()[:2]] == [item.id for item in stored]


async def test_it_begins_with_the_present_state(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url, postgres_dsn=dsn) as address,
        await AsyncConnection.connect(dsn, autocommit=True) as sql,
    ):
        await sql.execute(
            "INSERT INTO workspaces (slug, name) SELECT 'w' || n, 'n' FROM generate_series(1, 3) n"
        )
        process = await start(address, "--snapshot", "--kind", "workspace", "--json")
        await listening(process)
        assert process.stderr is not None
        async with asyncio.timeout(20):
            assert b"the state is whole" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, _ = await process.communicate()
        *states, last = map(json.loads, out.decode().splitlines())
        assert sorted(state["event"]["workspace"]["slug"] for state in states) == ["w1", "w2", "w3"]
        await sql.execute("UPDATE workspaces SET name = 'new' WHERE slug = 'w2'")
        _, text, _ = await run(address, "--json", "--after", last["cursor"], "-n", "1")
        event = json.loads(text.splitlines()[0])["event"]
        assert (event["type"], event["workspace"]["slug"]) == ("workspace.updated", "w2")
        # Broken off within the state there is no place to go on after.
        code, text, _ = await run(address, "--snapshot", "--kind", "workspace", "--json", "-n", "1")
        assert (code, len(text.splitlines())) == (0, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_0_and_the_cursor(
    target: str, writer: StreamWriter, number: signal.Signals
) -> None:
    process = await start(target)
    await listening(process)
    (stored,) = await writer.commit(Change())
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode()
        process.send_signal(number)
        out, err = await process.communicate()
    assert stored.change is not None
    assert stored.change.entity in line
    assert process.returncode == 0
    assert err == b""
    cursor = out.decode().strip()
    await writer.commit(next_one := Change())
    code, out_text, _ = await run(target, "--json", "--after", cursor, "-n", "1")
    assert code == 0
    assert json.loads(out_text.splitlines()[0])["event"]["subject"] == next_one.entity


async def test_nothing_came_and_the_cursor_is_that_of_ready(target: str, writer: StreamWriter) -> None:
    await writer.commit(Change())
    process = await start(target, "--json")
    await listening(process)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert process.returncode == 0
    cursor = json.loads(out)["cursor"]
    await writer.commit(Change())
    _, text, _ = await run(target, "--json", "--after", cursor, "-n", "1")
    assert json.loads(text.splitlines()[0])["sequence"] in (2, "2")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--kind", "cat"), 2, "unknown kind 'cat'"),
        (("--workspace", "x"), 2, "is no UUID"),
        (("--after", "%%%"), 2, "cursor"),
        (("--after", "AQ"), 2, "cursor"),
        (("-n", "0"), 2, ""),
        (("--since", "yesterday"), 2, "is no time"),
        (("--since", "2026-01-01", "--earliest"), 2, "one place only"),
        (("--field", "colour"), 2, "no model has a field 'colour'"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    target: str, words: tuple[str, ...], code: int, says: str
) -> None:
    ended, out, err = await run(target, *words)
    assert (ended, out) == (code, "")
    assert says in err
    assert "Traceback" not in err
    if says:
        assert len(err.splitlines()) == 1


async def test_a_server_that_is_away_is_said_in_one_line() -> None:
    code, out, err = await run("127.0.0.1:9")
    assert (code, out) == (3, "")
    assert err.startswith("error: the server cannot be reached")
    assert len(err.splitlines()) == 1


async def test_a_reader_that_has_enough_ends_it_quietly(target: str, writer: StreamWriter) -> None:
    await writer.commit_each(Change(size=1000) for _ in range(500))
    process = await asyncio.create_subprocess_shell(
        f"{shlex.quote(sys.executable)} -m zephyr tail --target {target} --earliest --json | head -1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    (line,) = out.decode().splitlines()
    assert json.loads(line)["event"]["type"] == "note.created"
    assert [line for line in err.decode().splitlines() if "listening" not in line] == []


async def test_broadcasts_on_request(target: str, writer: StreamWriter) -> None:
    process = await start(target, "--broadcasts", "--json", "-n", "1")
    await listening(process)
    async with Client(target) as client:
        await client.broadcast(kind="note", entity="n", verb="typing")
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    first, last = map(json.loads, out.splitlines())
    assert first["broadcast"]["type"] == "note.typing"
    assert last.keys() == {"cursor"}
    assert process.returncode == 0
