"""NATS and ``zephyr serve`` of one case, on folders of their own, with a writer in the bridge's place.

Neither Postgres nor Redis is there: a subscription needs neither, and what the server does
for the cache is another figure. Where the way from Postgres is measured, ``rig.py`` brings it.
"""

from __future__ import annotations

import resource
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
import orjson

from bench.errors import BenchError
from bench.program import Program, running
from bench.usage import Meter, peak_memory_bytes
from protos.events.v1 import stream_format as fmt
from zephyr.stack.nats import SYNC_INTERVAL_S, NatsServer
from zephyr.stack.part import Part, PartProcess
from zephyr.stack.running import ZEPHYR, package_environment

STREAM = "ZEPHYR"
WORKSPACE = "00000000-0000-4000-8000-000000000001"
_NOBODY = {
    "ZEPHYR_REDIS_URL": "redis://127.0.0.1:9/0",
    "ZEPHYR_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:9/none",
}


class Serving:
    """A broker with a stream of its own; servers and programs are started on it."""

    def __init__(self, folder: Path, broker: NatsServer) -> None:
        self.folder = folder
        self.broker = broker
        self.epoch = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"
        self.stored = 0
        self._logs = 0

    def settings(self) -> dict[str, object]:
        """What was set: a part of each case's parameters."""
        return {"nats_storage": "file", "nats_sync_interval_s": SYNC_INTERVAL_S, "cache": "none"}

    async def make_stream(self) -> None:
        """Makes the stream as the bridge does.

        Raises:
            BenchError: the broker refuses.
        """
        config = {
            "name": STREAM,
            "subjects": [fmt.SUBJECTS],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": 1,
            "allow_direct": True,
            "allow_atomic": True,
            "metadata": {fmt.EPOCH_KEY: self.epoch, fmt.FORMAT_KEY: fmt.FORMAT},
        }
        try:
            connection = await nats.connect(self.broker.url, allow_reconnect=False)
            try:
                reply = await connection.request(
                    f"$JS.API.STREAM.CREATE.{STREAM}", orjson.dumps(config), timeout=10
                )
            finally:
                await connection.close()
        except (nats.errors.Error, OSError) as exc:
            raise BenchError(
                f"NATS went away: {exc or type(exc).__name__}", "see its log (--data keeps it)"
            ) from exc
        if error := orjson.loads(reply.data).get("error"):
            raise BenchError(f"NATS refused the stream: {error.get('description')}")

    @asynccontextmanager
    async def server(self, name: str = "server") -> AsyncIterator[PartProcess]:
        """``zephyr serve``, which has read the stream to its end."""
        process = server_process(self.folder / name, self.broker.url)
        try:
            await process.start()
            yield process
        finally:
            await process.stop()

    @asynccontextmanager
    async def program(self, module: str, **spec: Any) -> AsyncIterator[Program]:
        """A program of the harness."""
        self._logs += 1
        log = self.folder / "programs" / f"{self._logs:03}-{module.rpartition('.')[2]}.log"
        async with running(module, spec, log) as program:
            yield program

    @asynccontextmanager
    async def writer(self, events: int, **spec: Any) -> AsyncIterator[Program]:
        """A program that writes so many events. Tell ``wrote`` when it has."""
        host, port = self.broker.address
        given = {"host": host, "port": port, "epoch": self.epoch, "workspace": WORKSPACE} | spec
        async with self.program("bench.writer", stored=self.stored, events=events, **given) as program:
            yield program

    async def wrote(self, writer: Program) -> int:
        """Waits until a writer is done; gives the sequence of the last message.

        Raises:
            BenchError: it failed.
        """
        self.stored = int(await writer.heard("stored"))
        return self.stored

    async def write(self, events: int) -> int:
        """Writes events as fast as it goes; gives the sequence of the last message."""
        async with self.writer(events) as writer:
            writer.tell(events)
            return await self.wrote(writer)


def server_process(folder: Path, nats_url: str) -> PartProcess:
    """``zephyr serve`` on a broker, not started yet."""
    # What is set in our environment would make another server of it.
    kept = {name: value for name, value in package_environment().items() if not name.startswith("ZEPHYR_")}
    ready_file = folder / "ready.json"
    env = (
        kept
        | _NOBODY
        | {"ZEPHYR_NATS_URL": nats_url, "ZEPHYR_STREAM": STREAM, "ZEPHYR_LISTEN": "127.0.0.1:0"}
    )
    argv = [*ZEPHYR, "serve", "--ready-file", str(ready_file)]
    return PartProcess(Part("server", argv, env, ready_file, folder / "server.log"))


@asynccontextmanager
async def open_serving(folder: Path) -> AsyncIterator[Serving]:
    """A broker with an empty stream on an empty folder."""
    async with AsyncExitStack() as closing:
        broker = NatsServer(folder / "nats")
        closing.push_async_callback(broker.stop)
        await broker.start()
        serving = Serving(folder, broker)
        await serving.make_stream()
        yield serving


class Costs:
    """What processes cost from now on, and the most memory that they ever had."""

    def __init__(self, **pids: int | None) -> None:
        self._pids = {name: pid for name, pid in pids.items() if pid is not None}
        self._meter = Meter(self._pids)

    def spent(self) -> tuple[dict[str, float], dict[str, int]]:
        """CPU seconds since, and peak memory."""
        return self._meter.cpu_seconds(), {name: peak_memory_bytes(pid) for name, pid in self._pids.items()}


@contextmanager
def open_files(needed: int) -> Iterator[None]:
    """Raises the limit of open files, for ourselves and what we start, as far as it may be.

    Raises:
        BenchError: that is not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(
            f"{needed:,} open files are needed, and {hard:,} are allowed",
            f"raise it with `ulimit -Hn {needed}`, or measure fewer streams",
        )
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(soft, needed) if soft != resource.RLIM_INFINITY else soft, hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
