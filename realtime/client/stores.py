"""Where a subscription's cursor is kept between runs of a program.

A store has two methods, and any object that has them will do: one that writes into the user's own
database, say. A cursor is saved after its event was handled, so what was handled last may
come once more after a crash; only who saves it in the transaction of the effect itself has each
event exactly once (docs/client.md).
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from realtime.cursor import Cursor, text_to_bytes
from realtime.errors import ArgumentInvalid, CursorInvalid, StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", re.ASCII)


class CursorStore(Protocol):
    """Keeps cursors by the names of their subscriptions. Errors are raised where the iteration waits."""

    async def load(self, name: str) -> bytes | None:
        """The cursor that was saved last; None when there is none."""
        ...

    async def save(self, name: str, cursor: bytes) -> None:
        """Keeps a cursor in the place of the one before."""
        ...


class MemoryCursorStore:
    """For as long as the program runs: a subscription made anew goes on where another ended."""

    def __init__(self) -> None:
        self._cursors: dict[str, bytes] = {}

    async def load(self, name: str) -> bytes | None:
        return self._cursors.get(name)

    async def save(self, name: str, cursor: bytes) -> None:
        self._cursors[name] = cursor


class FileCursorStore:
    """A file for each name in a folder, as text that ``zephyr tail --after`` takes.

    Each is replaced by a rename after it was synced to disk: a crash leaves the old one or the new one,
    whole. One process a name.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._tickets = 0
        self._written: dict[str, int] = {}

    async def load(self, name: str) -> bytes | None:
        """
        Raises:
            StoreUnavailable: the file cannot be read.
            CursorInvalid: what stands in it is no cursor.
        """
        path = self._path(name)
        try:
            text = await asyncio.to_thread(path.read_text, "ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreUnavailable(f"the cursor in {path} cannot be read: {exc}", "mend the file") from exc
        try:
            return Cursor.decode(text_to_bytes(text)).encode()
        except CursorInvalid as exc:
            error = CursorInvalid(f"what stands in {path} is none: {exc.message}")
            error.mend = "restore the file, or delete it to begin anew"
            raise error from exc

    async def save(self, name: str, cursor: bytes) -> None:
        """
        Raises:
            StoreUnavailable: the file cannot be written.
        """
        path = self._path(name)
        self._tickets += 1
        try:
            await asyncio.to_thread(self._replace, path, cursor, self._tickets)
        except OSError as exc:
            raise StoreUnavailable(f"the cursor cannot be saved in {path}: {exc}", "mend the folder") from exc

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise ArgumentInvalid("name", f"{name!r} cannot be a file's name", "use letters, digits and ._-")
        return self.folder / f"{name}.cursor"

    def _replace(self, path: Path, cursor: bytes, ticket: int) -> None:
        text = Cursor.decode(cursor).to_text()
        with self._lock:
            # A wait for an earlier one that was cancelled leaves its thread behind, which may come later.
            if ticket < self._written.get(path.name, 0):
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            with new.open("w", encoding="ascii") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the rename itself
            finally:
                os.close(folder)
            self._written[path.name] = ticket


class RedisCursorStore:
    """A key for each name. The connection is the user's own, and stays open."""

    def __init__(self, redis: Redis, prefix: str = "zephyr:cursor:") -> None:
        self._redis = redis
        self._prefix = prefix

    async def load(self, name: str) -> bytes | None:
        """
        Raises:
            StoreUnavailable: Redis cannot be reached.
            CursorInvalid: what stands there is no cursor.
        """
        from redis.exceptions import RedisError

        try:
            value = await self._redis.get(self._prefix + name)
        except (RedisError, OSError) as exc:
            raise _redis_away(exc) from exc
        if value is None:
            return None
        return text_to_bytes(value.decode("ascii", "replace") if isinstance(value, bytes) else value)

    async def save(self, name: str, cursor: bytes) -> None:
        """
        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        from redis.exceptions import RedisError

        try:
            await self._redis.set(self._prefix + name, Cursor.decode(cursor).to_text())
        except (RedisError, OSError) as exc:
            raise _redis_away(exc) from exc


def _redis_away(exc: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the cursor's Redis cannot be reached: {exc}", "see that it runs, then go on")
