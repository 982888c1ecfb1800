"""The examples of docs/client.md, run as the programs that they are, on a whole path of real servers."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running
from tests.fixtures.realtime_server import serving

REPO = Path(__file__).parents[2]
WORKSPACE = "28c48e46-e3ac-4b87-919c-29c80aa80251"
FILL = f"""
    INSERT INTO workspaces (id, slug, name) VALUES ('{WORKSPACE}', 'acme', 'Acme');
    INSERT INTO users (email) VALUES ('ann@example.org');
    INSERT INTO notes (workspace_id, author_id, title)
        SELECT '{WORKSPACE}', users.id, title FROM users, unnest(ARRAY['First', 'Second', 'Draft']) title;
"""
END = "UPDATE notes SET title = 'Last' WHERE title = 'Draft'"

DOCUMENT = (REPO / "docs" / "client.md").read_text()
EXAMPLES = {
    re.sub(r"\W+", "-", heading).strip("-").lower() + (f"-{at}" if at else ""): code
    for section in DOCUMENT.split("\n## ")
    for heading in (section.splitlines()[0],)
    for at, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
}
SAYS = {
    "subscribing": ["created First", "created Second", "created Draft", "updated Last"],
    "whole-batches": ["events, transaction open: "],
    "the-present-state": ["['First', 'Last', 'Second']"],
    "keeping-the-cursor": ["billed "],
    "keeping-the-cursor-1": ["billed up to Last"],
    "when-something-breaks": ["this has 7; pass a cursor exactly as it was received"],
    "when-something-breaks-1": ["events up to the live edge"],
    "reading-your-own-write": ["now Ann"],
    "events-in-your-own-transaction": ["updated by ann@example.org", "shared by ann@example.org"],
    "broadcasts": ["ann is typing in shopping-list"],
    "the-past-and-single-entities": ["events of one note, examined up to ", "Last", "ann@example.org"],
    "publishing": ["stored, repeated: False", "somebody was first: True True", "2 stored together"],
    "publishing-1": ["the last one's place: True", "all are stored, up to 1000"],
    "publishing-2": ["publishing first\npublishing second\npublishing third\npublishing fourth\n"],
}


@pytest.fixture
async def servers(bridge_settings: BridgeSettings, redis_url: str) -> AsyncIterator[dict[str, str]]:
    """What stands in the examples, and what it is here."""
    dsn = bridge_settings.postgres_dsn
    async with (
        running(bridge_settings),
        serving(bridge_settings.nats_url, postgres_dsn=dsn, redis_url=redis_url) as address,
    ):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(FILL.encode())
            connection.execute(END.encode())
        yield {"127.0.0.1:7400": address, "postgresql://postgres@127.0.0.1:5432/postgres": dsn}


async def run(code: str, servers: dict[str, str], folder: Path) -> str:
    for written, real in servers.items():
        code = code.replace(written, real)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", code),
        cwd=folder,
        env={"PYTHONPATH": str(REPO)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


def test_every_example_has_its_check() -> None:
    assert EXAMPLES.keys() == SAYS.keys()


@pytest.mark.timeout(180)
async def test_the_examples_do_what_they_say(servers: dict[str, str], tmp_path: Path) -> None:
    for name, code in EXAMPLES.items():
        said = await run(code, servers, tmp_path)
        at = 0
        for part in SAYS[name]:
            assert part in said[at:], f"{name}: {part!r} is not in {said!r}"
            at = said.index(part, at) + len(part)
    # What was kept: a program that runs again goes on, and finds nothing to do.
    assert (tmp_path / "cursors" / "billing.cursor").exists()
    with psycopg.connect(next(reversed(servers.values()))) as connection:
        assert connection.execute("SELECT title FROM invoices ORDER BY title").fetchall() == [
            ("First",),
            ("Last",),
            ("Second",),
        ]
