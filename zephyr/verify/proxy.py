"""A TCP proxy on loopback between the bridge and NATS, which can be cut, stalled and made one-way.

Every connection has one task a direction, with one buffer of a bounded size: what the other
side does not take is not read either. A connection from which bytes were dropped can never
go on, so it is closed when its mode ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from zephyr.verify.frames import ClientFrames

_CHUNK = 64 * 1024
_HOST = "127.0.0.1"


class Mode(Enum):
    """What happens to what passes."""

    PASS = "pass"
    CUT = "cut"
    """Connections end, and new ones end at once."""
    BLACKHOLE = "blackhole"
    """Nothing passes in either direction; it does when the mode ends."""
    DROP_ANSWERS = "drop answers"
    """What the bridge sends arrives, what NATS answers is thrown away."""
    DELAY = "delay"
    """Everything comes ``delay_s`` later."""
    FIRST_ROWS = "first rows"
    """The next ``rows`` events of the bridge pass, and nothing that it sends after them."""


class Proxy:
    """Listens while its context is open; ``mode`` is changed by ``set``."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._spoilt: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.rows_left = 0
        self.delay_s = 0.02
        self.dropped_bytes = 0

    @property
    def url(self) -> str:
        """Where the bridge connects."""
        assert self._server is not None
        return f"nats://{_HOST}:{self._server.sockets[0].getsockname()[1]}"

    def set(self, mode: Mode, rows: int = 0) -> None:
        """Changes the mode, of connections that are open as well."""
        self._mode = mode
        self.rows_left = rows
        self._changed.set()
        self._changed = asyncio.Event()
        closing = set(self._writers) if mode is Mode.CUT else set(self._spoilt)
        for writer in closing:
            writer.transport.abort()
        self._spoilt.clear()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, _HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Either side went away, or the run is over: then so is this connection. The streams'
            # own callback would log a cancellation, and nobody else waits for this task.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.CUT:
            return
        up_reader, up_writer = await asyncio.open_connection(*self._target())
        self._writers |= {writer, up_writer}
        ways = [
            asyncio.ensure_future(self._send(reader, up_writer)),
            asyncio.ensure_future(self._answer(up_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before anything is awaited: the proxy's own end may cancel this task a second time.
            up_writer.transport.abort()
            self._writers -= {writer, up_writer}
            self._spoilt.discard(writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the bridge to NATS, command by command."""
        frames = ClientFrames()
        while data := await reader.read(_CHUNK):
            for frame, is_row in frames.feed(data):
                await self._held_up(is_row)
                writer.write(frame)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From NATS to the bridge."""
        while data := await reader.read(_CHUNK):
            if self._mode is Mode.DROP_ANSWERS:
                self.dropped_bytes += len(data)
                self._spoilt.add(writer)
                continue
            while self._mode is Mode.BLACKHOLE:
                await self._changed.wait()
            if self._mode is Mode.DELAY:
                await asyncio.sleep(self.delay_s)
            if writer in self._spoilt:
                return
            writer.write(data)
            await writer.drain()

    async def _held_up(self, is_row: bool) -> None:
        """Waits as long as the mode lets nothing of the bridge pass."""
        while self._mode is Mode.BLACKHOLE or (self._mode is Mode.FIRST_ROWS and self.rows_left == 0):
            await self._changed.wait()
        if self._mode is Mode.FIRST_ROWS:
            self.rows_left -= is_row
        elif self._mode is Mode.DELAY:
            await asyncio.sleep(self.delay_s)
