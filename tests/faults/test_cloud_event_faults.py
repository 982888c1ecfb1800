"""Plain NATS clients while servers die: what is asked again, with the same id and source, is stored once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from tests.fixtures.publish_kit import W
from tests.fixtures.realtime_server import ServerProcess
from tests.fixtures.stream_writer import STREAM, StreamWriter
from zephyr.stack.nats import NatsServer

EVENTS = 600
AT_ONCE = 40


async def ask(connection: NatsClient, number: int, answered: asyncio.Semaphore) -> dict[str, Any]:
    """Until it is stored, as a client would."""
    headers = {"ce-specversion": "1.0", "ce-id": f"e{number}", "ce-source": "/till", "ce-type": "note.shared"}
    while True:
        try:
            message = await connection.request(
                f"zephyr-publish.0.{W}.note.n{number}", b"{}", timeout=2, headers=headers
            )
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            continue
        answer: dict[str, Any] = json.loads(message.data)
        if "error" not in answer:
            answered.release()
            return answer
        assert answer["error"]["code"] in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"), answer


@pytest.mark.timeout(120)
async def test_a_server_is_killed_and_each_is_stored_once(
    nats_server: NatsServer, writer: StreamWriter, tmp_path: Path
) -> None:
    servers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        servers.append(ServerProcess(tmp_path / name, nats_server.url))
        await servers[-1].start()
    connection = await nats.connect(nats_server.url)
    answered = asyncio.Semaphore(0)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> dict[str, Any]:
        async with room:
            return await ask(connection, number, answered)

    try:
        asking = [asyncio.ensure_future(one(number)) for number in range(EVENTS)]
        for server in (*servers, *servers):
            for _ in range(EVENTS // 6):
                await answered.acquire()
            await server.kill()
            await server.start()
        answers = await asyncio.gather(*asking)
        context = connection.jetstream()
        last = (await context.stream_info(STREAM)).state.last_seq
        stored: dict[str, list[int]] = {}
        for sequence in range(1, last + 1):
            message = await context.get_msg(STREAM, sequence)
            if (message.subject or "").endswith(".event"):
                stored.setdefault((message.headers or {})["ce-id"], []).append(sequence)
    finally:
        await connection.close()
        for server in servers:
            await server.kill()
    assert stored == {f"e{number}": [answers[number]["sequence"]] for number in range(EVENTS)}
