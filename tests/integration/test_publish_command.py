"""``zephyr publish`` as a process, as people and scripts run it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from protos.events.v1 import publish_pb2 as pb
from realtime.client import Client, earliest
from realtime.errors import ArgumentInvalid
from realtime.status import to_error
from tests.fixtures.eventually import eventually
from tests.fixtures.realtime_server import serving
from tests.fixtures.scripted_publisher import ScriptedSession, scripted_publisher, serve_all, stored
from tests.fixtures.stream_writer import STREAM, StreamWriter
from zephyr.commands.tail import cursor_text
from zephyr.stack.nats import NatsServer
from zephyr.stack.server import free_port

pytestmark = pytest.mark.timeout(90)


def line(number: int, **more: Any) -> str:
    return json.dumps({"kind": "note", "entityId": f"e{number}", "verb": "shared", "workspaceId": "_"} | more)


def written(folder: Path, *lines: str) -> str:
    file = folder / "events.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


async def start(target: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zephyr", "publish", "--target", target, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(target: str, *words: str, given: str = "") -> tuple[int, str, str]:
    process = await start(target, *words)
    async with asyncio.timeout(40):
        out, err = await process.communicate(given.encode())
    assert process.returncode is not None
    assert "Traceback" not in err.decode(), err.decode()
    return process.returncode, out.decode(), err.decode()


class Shop:
    """Stores what comes, of one producer, and knows what it has; refuses entities that are named ``bad``."""

    def __init__(self) -> None:
        self.stored: list[pb.ProducedEvent] = []

    async def serve(self, session: ScriptedSession) -> None:
        reached = self.stored[-1].sequence if self.stored else 0
        await session.opened(reached=reached)
        while await session.read():
            await self._store(session, session.events[-session.requests[-1] :])

    async def _store(self, session: ScriptedSession, events: list[pb.ProducedEvent]) -> None:
        results = []
        for event in events:
            if event.event.entity_id == "bad":
                error = to_error(ArgumentInvalid("event.entity_id", "'bad' is refused"))
                results.append(pb.PublishResult(sequence=event.sequence, error=error))
            else:
                self.stored.append(event)
                results.append(pb.PublishResult(sequence=event.sequence, stored=stored(event.sequence)))
        await session.send(results=pb.PublishResults(results=results))


async def test_a_file_is_stored_once_however_often_it_is_run(tmp_path: Path) -> None:
    shop = Shop()
    file = written(tmp_path, *(line(number) for number in range(1, 2501)))
    summary = tmp_path / "summary.json"
    async with scripted_publisher(shop.serve) as server:
        words = (file, "--producer", "nightly", "--json", str(summary))
        code, out, err = await run(server.address, *words)
        assert code == 0, err
        assert "2,500 stored" in err
        assert out.strip()  # the cursor behind the last one
        found = json.loads(summary.read_text())
        assert (found["stored"], found["passed"], found["reached"]) == (2500, 0, 2500)
        assert found["producer"] == "nightly"
        assert found["cursor"] == out.strip()
        written(tmp_path, *(line(number) for number in range(1, 2502)))
        code, _, err = await run(server.address, *words)
        assert code == 0, err
        assert "1 stored, 2,500 were stored before" in err
    assert [event.sequence for event in shop.stored] == list(range(1, 2502))
    assert [event.event.entity_id for event in shop.stored][-1] == "e2501"


async def test_standard_input_with_sequences_of_its_own() -> None:
    shop = Shop()
    async with scripted_publisher(shop.serve) as server:
        given = "\n\n".join([line(1, sequence=10), line(2, sequence="20"), line(3, sequence=21)])
        code, _, err = await run(server.address, given=given)
        assert code == 0, err
    assert [event.sequence for event in shop.stored] == [10, 20, 21]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{oops", "line 3: it is no JSON"),
        ("[1]", "line 3: it is no JSON object"),
        (
            line(3, colour="red"),
            'line 3: Message type "zephyr.events.v1.NewEvent" has no field named "colour"',
        ),
        (line(3, sequence=0), "line 3: sequence: 0 is no number from 1"),
        (line(3, sequence=2), "line 3: sequence: 2 comes after 2"),
        (line(3, workspaceId="mine", verb="No"), "line 3: workspace_id: does not match regex pattern"),
        (line(3, entityId="bad"), "line 3: event.entity_id: 'bad' is refused"),
    ],
)
async def test_a_bad_line_is_named_and_ends_it(tmp_path: Path, bad: str, said: str) -> None:
    shop = Shop()
    file = written(tmp_path, line(1), line(2), bad)
    async with scripted_publisher(shop.serve) as server:
        code, _, err = await run(server.address, file)
        assert code == 1
        assert said in err
        assert "2 stored, 1 refused" in err
        assert [event.sequence for event in shop.stored] == [1, 2]


async def test_a_refusal_is_told_while_no_further_line_comes() -> None:
    shop = Shop()
    async with scripted_publisher(shop.serve) as server:
        process = await start(server.address)
        assert process.stdin is not None
        process.stdin.write((line(1) + "\n" + line(2, entityId="bad") + "\n").encode())
        async with asyncio.timeout(30):
            assert await process.wait() == 1  # standard input is still open
        assert process.stderr is not None
        assert b"line 2: event.entity_id: 'bad' is refused" in await process.stderr.read()


async def test_bad_lines_can_be_passed_over(tmp_path: Path) -> None:
    shop = Shop()
    summary = tmp_path / "summary.json"
    file = written(tmp_path, line(1), "{oops", line(3, entityId="bad"), line(4))
    async with scripted_publisher(shop.serve) as server:
        code, _, err = await run(server.address, file, "--skip-bad", "--json", str(summary))
        assert code == 1
        assert "2 stored, 2 refused" in err
    assert [event.sequence for event in shop.stored] == [1, 4]
    assert [each["line"] for each in json.loads(summary.read_text())["bad"]] == [2, 3]


async def test_a_dry_run_asks_no_server(tmp_path: Path) -> None:
    file = written(tmp_path, line(1), "{oops", line(3))
    code, _, err = await run(f"127.0.0.1:{free_port()}", file, "--dry-run")
    assert code == 1
    assert "line 2: it is no JSON" in err
    assert "3 lines checked, 1 refused" in err


async def test_what_cannot_begin_says_why_in_one_line(tmp_path: Path) -> None:
    code, _, err = await run("127.0.0.1:9", str(tmp_path / "none"))
    assert code == 2
    assert "none cannot be read: No such file" in err
    file = written(tmp_path, line(1))
    code, _, err = await run(f"127.0.0.1:{free_port()}", file, "--patience-s", "0.2")
    assert code == 3
    assert "the server cannot be reached" in err
    code, _, err = await run("127.0.0.1:9", file, "--json", str(tmp_path / "no" / "summary.json"))
    assert code == 2
    assert "there is no folder" in err


async def test_killed_and_run_again_each_line_is_stored_once_and_in_order(
    tmp_path: Path, nats_server: NatsServer, writer: StreamWriter
) -> None:
    lines = 10_000
    file = written(tmp_path, *(line(number) for number in range(1, lines + 1)))

    async def has_begun() -> bool:
        return bool((await writer.api(f"STREAM.INFO.{STREAM}"))["state"]["messages"] > 2)

    async with serving(nats_server.url) as address:
        process = await start(address, file, "--producer", "nightly")
        await eventually(has_begun, timeout=30)
        process.kill()
        await process.communicate()
        code, out, err = await run(address, file, "--producer", "nightly")
        assert code == 0, err
        cursor = out.strip()
        entities: list[str] = []
        async with Client(address) as client, client.subscribe(start=earliest()) as subscription:
            async for event in subscription:
                entities.append(event.event.subject)
                if cursor_text(event.cursor) == cursor:
                    break
    assert entities == [f"e{number}" for number in range(1, lines + 1)]


async def test_a_pipe_is_published_as_it_comes_and_ctrl_c_ends_it() -> None:
    async with scripted_publisher(serve_all) as server:
        process = await start(server.address)
        assert process.stdin is not None
        process.stdin.write((line(1) + "\n").encode())
        await eventually(lambda: server.sessions and server.sessions[0].sequences == [1], timeout=30)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            out, err = await process.communicate()
        assert process.returncode == 130, err
        assert out.strip()
        assert b"1 stored" in err
