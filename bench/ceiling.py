"""Runs a ceiling: a short program of its own, as the bridge is, that prints how long it took."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

from bench.errors import BenchError
from zephyr.stack.running import package_environment

CEILINGS = {
    "bridge": "bench.reader",
    "snapshot": "bench.copier",
    "fanout": "bench.handler",
    "relay": "bench.relay",
    "catchup": "bench.consumer",
    "idle": "bench.handler",
    "publish": "bench.raw_publisher",
}


def source_of(bench: str) -> str:
    """The whole program."""
    spec = importlib.util.find_spec(CEILINGS[bench])
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


async def run_ceiling(bench: str, *words: str) -> float:
    """The seconds that the ceiling of a bench took, called with ``words``.

    Raises:
        BenchError: it failed; its last line is quoted.
    """
    module = CEILINGS[bench]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words,
        env=package_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise BenchError(
            f"{module} ended with {process.returncode}: {last}", "see the servers' logs (--data)"
        )
    return float(out)
