"""``zephyr bridge`` run to its end: the exit codes, and the one error line that it must end with."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import psycopg

from bridge.settings import BridgeSettings
from tests.fixtures.bridge_process import environment_for

REACH, UNFIT, HELD, EPOCH, ROW = 3, 4, 5, 6, 7


async def bridge(
    *words: str, settings: BridgeSettings, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``zephyr bridge`` to its end, which must come."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "zephyr", "bridge", *words],
        env=environment_for(settings) | environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


async def refused(code: int, *words: str, settings: BridgeSettings, **environment: str) -> str:
    """The one error line of a bridge that must end with ``code``."""
    ended = await bridge("run", settings=settings, **environment)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    # Nothing stands after it but the list that it announces.
    after = ended.stderr.partition("error: ")[2].splitlines()[1:]
    assert all(line.startswith("  - ") for line in after), ended.stderr
    said = "\n".join([errors[0], *after])
    for word in words:
        assert word in said, said
    return said


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
