"""A cache in Redis or Valkey, shared by all servers.

Each operation is one script, so states, truncations and watermark change together and
any number of writers may work at once. A batch goes in bounded chunks, one after the
other, and the watermark moves with the last of them: it never covers a write that was
not made. A chunk that finds another generation than the one before it writes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from realtime.cache import scripts
from realtime.cache.protocol import TOMBSTONE_TTL_S, Cached, Clear, Forget, Put, Write, place_of
from realtime.cursor import Cursor
from realtime.errors import SettingInvalid, StoreUnavailable

CHUNK_WRITES = 256
CHUNK_BYTES = 512 * 1024
"""Bounds of one script call; a larger state travels alone."""

_MAX_CONNECTIONS = 16
_WRITE_TIMEOUT_S = 5.0

_Script = Callable[[Sequence[str], Sequence[str | bytes | int]], Awaitable[Any]]


class RedisCache:
    """A ``Cache`` at ``url``, its keys under ``prefix``.

    ``read_timeout_s`` bounds what ``get`` and ``fill`` wait for, in seconds: a read has
    Postgres to go to. Writes may take 5 seconds a chunk. It connects when first used.

    Raises:
        SettingInvalid: the URL is malformed.
    """

    def __init__(self, url: str, prefix: str = "zephyr:", read_timeout_s: float = 0.25) -> None:
        self._prefix = prefix
        self._read_timeout_s = read_timeout_s
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_MAX_CONNECTIONS,
                timeout=_WRITE_TIMEOUT_S,
                socket_timeout=_WRITE_TIMEOUT_S,
                socket_connect_timeout=1.0,
                # A connection that the server closed while it was idle is opened anew, once.
                retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
                protocol=2,
            )
        except ValueError as exc:
            raise SettingInvalid(
                f"the address of Redis is malformed: {exc}",
                "set ZEPHYR_REDIS_URL to redis://HOST:PORT/0",
            ) from exc
        self._redis = Redis.from_pool(pool)
        self._meta = f"{prefix}meta"
        self._get = self._register(scripts.GET)
        self._fill = self._register(scripts.FILL)
        self._apply = self._register(scripts.APPLY)
        self._reset = self._register(scripts.RESET)

    async def get(self, kind: str, entity_id: str) -> Cached | None:
        async with self._bounded(self._read_timeout_s):
            value = await self._get([self._meta, self._key(kind, entity_id)], [kind])
        return None if value is None else _cached(cast("bytes", value))

    async def fill(self, kind: str, entity_id: str, model: bytes, ttl_s: float) -> bool:
        async with self._bounded(self._read_timeout_s):
            kept = await self._fill(
                [self._meta, self._key(kind, entity_id)], [kind, max(1, round(ttl_s * 1000)), model]
            )
        return bool(kept)

    async def apply(
        self, writes: Sequence[Write], after: Cursor | None = None, through: Cursor | None = None
    ) -> bool:
        clears = {write.kind: write for write in writes if isinstance(write, Clear)}
        heads: list[str | bytes | int] = [len(clears)]
        for clear in clears.values():
            heads += [clear.kind, _place_text(clear.cursor)]
        new_generation = secrets.token_hex(scripts.GENERATION_LENGTH // 2)
        generation = ""
        for chunk, is_last in _chunks([write for write in writes if not isinstance(write, Clear)]):
            arguments = [
                generation,
                new_generation,
                place_of(after) if after else "",
                _place_text(through) if through and is_last else "",
                TOMBSTONE_TTL_S,
                *heads,
                *(_value(write) for write in chunk),
            ]
            keys = [self._meta, *(self._key(write.kind, write.entity_id) for write in chunk)]
            async with self._bounded(_WRITE_TIMEOUT_S):
                generation = cast("bytes", await self._apply(keys, arguments)).decode()
            if not generation:
                return False
        return True

    async def watermark(self) -> Cursor | None:
        async with self._bounded(_WRITE_TIMEOUT_S):
            text = await cast("Awaitable[bytes | None]", self._redis.hget(self._meta, "watermark"))
        return None if text is None else _cursor(text)

    async def reset(self, watermark: Cursor | None) -> None:
        seen = _place_text(watermark) if watermark else ""
        async with self._bounded(_WRITE_TIMEOUT_S):
            await self._reset([self._meta], [seen, secrets.token_hex(scripts.GENERATION_LENGTH // 2)])

    async def close(self) -> None:
        await self._redis.aclose()

    def _key(self, kind: str, entity_id: str) -> str:
        return f"{self._prefix}{kind}:{entity_id}"

    def _register(self, text: str) -> _Script:
        return cast("_Script", self._redis.register_script(text))

    @asynccontextmanager
    async def _bounded(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except (RedisError, OSError) as exc:  # the builtin TimeoutError is an OSError
            raise _unavailable(exc) from exc


def _chunks(writes: Sequence[Put | Forget]) -> Iterator[tuple[Sequence[Put | Forget], bool]]:
    """The writes in runs within the bounds, each with whether it is the last; at least one run."""
    begin = size = 0
    for index, write in enumerate(writes):
        length = len(write.model or b"") if isinstance(write, Put) else 0
        if index > begin and (index - begin >= CHUNK_WRITES or size + length > CHUNK_BYTES):
            yield writes[begin:index], False
            begin, size = index, 0
        size += length
    yield writes[begin:], True


def _place_text(cursor: Cursor) -> str:
    return f"{place_of(cursor)}{cursor.timestamp_ns:016x}"


def _value(write: Put | Forget) -> bytes:
    place = _place_text(write.cursor).encode()
    if isinstance(write, Forget):
        return place + b"x"
    return place + b"t" if write.model is None else place + b"s" + write.model


def _cursor(text: bytes) -> Cursor:
    return Cursor(text[:20].decode(), int(text[20:36], 16), int(text[36:52], 16))


def _cached(value: bytes) -> Cached:
    flag, model = value[52:53], value[53:]
    if flag == b"f":
        return Cached(model, None)
    return Cached(None if flag == b"t" else model, _cursor(value))


def _unavailable(exc: Exception) -> StoreUnavailable:
    """The one translation of redis-py's errors."""
    cause = str(exc).split("\n", 1)[0]
    if isinstance(exc, AuthenticationError | AuthorizationError | NoPermissionError):
        return StoreUnavailable(
            f"Redis refuses the user: {cause}", "set a user with rights in ZEPHYR_REDIS_URL"
        )
    if isinstance(exc, OutOfMemoryError):
        return StoreUnavailable(
            "Redis has no memory left", "raise its maxmemory, or set maxmemory-policy allkeys-lru"
        )
    if isinstance(exc, RedisTimeoutError | TimeoutError):
        return StoreUnavailable("Redis did not answer in time", "check that it runs and is not overloaded")
    if isinstance(exc, ResponseError):
        return StoreUnavailable(
            f"Redis refused a command: {cause}",
            "check its version (7 or newer), its state and the key prefix",
        )
    return StoreUnavailable(
        f"Redis cannot be reached: {cause}", "check that it runs and that ZEPHYR_REDIS_URL is its address"
    )
