"""The three servers on one data folder.

The folder is locked first and released last, so that while anything of a stack runs, no
other stack can begin on its data. Servers start together and stop in the reverse order of
their closing stack.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from zephyr.stack.errors import StackError
from zephyr.stack.lock import DataLock
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.server import Server
from zephyr.stack.valkey import ValkeyServer

ADDRESSES_FILE = "stack.json"
OTHER_FOLDER = "choose another one with --data"


class Stack:
    """NATS, Postgres and Valkey, running while the context is open.

    Raises (on entering):
        DataInUse: another stack runs on ``data``.
        BinaryMissing, StartFailed, PlaceUnsafe: a server cannot be started.
        StackError: the folder cannot be made.
    """

    def __init__(self, data: Path, postgres_settings: Mapping[str, str] | None = None) -> None:
        self.data = data.absolute()
        self.nats = NatsServer(self.data / "nats")
        self.postgres = PostgresServer(self.data / "postgres", postgres_settings)
        self.redis = ValkeyServer(self.data / "redis")
        self._closing = AsyncExitStack()

    @property
    def servers(self) -> tuple[Server, ...]:
        """In the order of starting."""
        return self.nats, self.postgres, self.redis

    async def __aenter__(self) -> Stack:
        async with AsyncExitStack() as closing:
            make_data_folder(self.data)
            lock = closing.enter_context(DataLock(self.data))
            # Addresses of a former run go before the lock is signed: who sees the
            # signature and the file knows that both are of this run.
            (self.data / ADDRESSES_FILE).unlink(missing_ok=True)
            lock.sign()
            for server in self.servers:
                closing.push_async_callback(server.stop)
            started = await asyncio.gather(
                *(server.start() for server in self.servers), return_exceptions=True
            )
            for result in started:
                if result is not None:
                    raise result
            self._closing = closing.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()


def make_data_folder(data: Path) -> None:
    """Makes the folder, closed to others, and has git look away; an existing one stays as it is.

    Raises:
        StackError: it cannot be made, or not be written to.
    """
    try:
        if not data.is_dir():
            data.mkdir(mode=0o700, parents=True)
            (data / ".gitignore").write_text("*\n", encoding="utf-8")
        writable = os.access(data, os.W_OK | os.X_OK)
    except OSError as error:
        raise StackError(f"the data folder {data} cannot be made: {error.strerror}", OTHER_FOLDER) from error
    if not writable:
        raise StackError(f"the data folder {data} cannot be written to", OTHER_FOLDER)
