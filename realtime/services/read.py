"""ReadService: the latest state of single entities.

The cache is asked first, and Postgres when the cache knows nothing or is not there; what
Postgres said is lent to the cache for some seconds. After a failure the cache is left
alone for a moment, so that an outage costs one short wait and not one a read. A read that
must be as new as a token waits for the cache to have it, and goes to Postgres when that takes too long.
"""

from __future__ import annotations

import asyncio
import enum
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from protos.events.v1 import read_pb2, read_pb2_grpc
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from realtime.auth.policy import AllowAll
from realtime.auth.read_access import ReadAccess
from realtime.cache.protocol import Cache
from realtime.cursor import decode_token
from realtime.database import Database
from realtime.errors import ArgumentInvalid, NotFound, RealtimeError, StoreUnavailable
from realtime.read_after import MOST_S, ReadAfter
from realtime.status import abort

FILL_TTL_S = 10.0
"""How long a state read from Postgres may be served before it is read again, in seconds."""
CACHE_PAUSE_S = 1.0
"""How long a cache that failed is left alone, in seconds."""
_POSTGRES_S = 1.0
"""So much of a call's time is left for Postgres, where a read waits for a token."""
CACHE_TURNS = 12
"""How many reads ask the cache at once; fewer than the connections that it has."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_T = TypeVar("_T")
_Model = TypeVar("_Model", Note, User)
_Context = grpc.aio.ServicerContext[Any, Any]
_log = structlog.get_logger(__name__)


class _Has(enum.Enum):
    """What the cache is known to have: anything will do; what was asked for; not that, as far as is known."""

    WHATEVER = enum.auto()
    CACHE = enum.auto()
    NOT_YET = enum.auto()


class ReadService(read_pb2_grpc.ReadServiceServicer):
    """Serves ``zephyr.events.v1.ReadService`` from ``cache``, else from ``database``."""

    def __init__(
        self,
        cache: Cache,
        database: Database,
        fill_ttl_s: float = FILL_TTL_S,
        access: ReadAccess | None = None,
        read_after: ReadAfter | None = None,
    ) -> None:
        self._cache = cache
        self._database = database
        self._fill_ttl_s = fill_ttl_s
        self._read_after = read_after
        self._access = access or ReadAccess(AllowAll(), lambda _: ())
        # Reads wait here, where no time limit runs: a burst must not look like an outage.
        self._turns = asyncio.Semaphore(CACHE_TURNS)
        self._cache_down_until = 0.0
        self._cache_is_down = False

    async def GetNote(self, request: read_pb2.GetNoteRequest, context: _Context) -> read_pb2.GetNoteResponse:
        try:
            allowed = await self._access.entity(context.invocation_metadata(), "note", request.id)
            note, cursor, source = await self._read(
                "note", request.id, Note, self._database.note, await self._has(request.min_cursor, context)
            )
            allowed.check(note.workspace_id)
        except RealtimeError as exc:
            await abort(context, exc)
        return read_pb2.GetNoteResponse(note=note, cursor=cursor, source=source)

    async def GetUser(self, request: read_pb2.GetUserRequest, context: _Context) -> read_pb2.GetUserResponse:
        try:
            allowed = await self._access.entity(context.invocation_metadata(), "user", request.id)
            user, cursor, source = await self._read(
                "user", request.id, User, self._database.user, await self._has(request.min_cursor, context)
            )
            allowed.check(None)
        except RealtimeError as exc:
            await abort(context, exc)
        return read_pb2.GetUserResponse(user=user, cursor=cursor, source=source)

    async def ListEvents(self, _: read_pb2.ListEventsRequest, context: _Context) -> NoReturn:
        """Not here: ``list_events.py`` takes its place in a server that reads the stream."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server reads no stream")
        raise AssertionError("abort returned")

    async def _read(
        self,
        kind: str,
        text: str,
        model: type[_Model],
        from_postgres: Callable[[str], Awaitable[_Model | None]],
        has: _Has,
    ) -> tuple[_Model, bytes, read_pb2.ReadSource.ValueType]:
        """The entity, the cursor of its state, and where it was read."""
        entity_id = canonical_uuid("id", text)
        cached = None
        if has is not _Has.NOT_YET:
            cached = await self._ask_cache(lambda: self._cache.get(kind, entity_id))
        # What Postgres lent may be older than a token that came since.
        if cached is not None and (has is _Has.WHATEVER or cached.cursor is not None):
            if cached.model is None:
                raise NotFound(kind, entity_id)
            try:
                entity = model.FromString(cached.model)
            except DecodeError:
                _log.error("a cached state cannot be read", kind=kind, id=entity_id)
            else:
                if cached.cursor is not None:
                    return entity, cached.cursor.encode(), read_pb2.READ_SOURCE_CACHE
                return entity, b"", read_pb2.READ_SOURCE_POSTGRES
        row = await from_postgres(entity_id)
        if row is None:
            raise NotFound(kind, entity_id)
        state = row.SerializeToString(deterministic=True)
        await self._ask_cache(lambda: self._cache.fill(kind, entity_id, state, self._fill_ttl_s))
        return row, b"", read_pb2.READ_SOURCE_POSTGRES

    async def _has(self, min_cursor: bytes, context: _Context) -> _Has:
        """Waits for what a token says, as long as the call allows it."""
        if not min_cursor:
            return _Has.WHATEVER
        token = decode_token(min_cursor)
        if self._read_after is None:
            return _Has.NOT_YET
        left_s = context.time_remaining()
        # Postgres is to be read within the call's time as well.
        limit_s = MOST_S if left_s is None else min(MOST_S, left_s - min(_POSTGRES_S, left_s / 2))
        return _Has.CACHE if await self._read_after.cache_has(token, limit_s) else _Has.NOT_YET

    async def _ask_cache(self, operation: Callable[[], Awaitable[_T]]) -> _T | None:
        """What the cache says; None when it does not answer, or did not a moment ago."""
        async with self._turns:
            if time.monotonic() < self._cache_down_until:
                return None
            try:
                result = await operation()
            except StoreUnavailable as exc:
                self._cache_down_until = time.monotonic() + CACHE_PAUSE_S
                if not self._cache_is_down:
                    self._cache_is_down = True
                    _log.warning(
                        "reads go to Postgres, the cache does not answer", cause=exc.message, mend=exc.mend
                    )
                return None
        if self._cache_is_down:
            self._cache_is_down = False
            _log.info("the cache answers again")
        return result


def canonical_uuid(field: str, text: str) -> str:
    """``text`` as a UUID in lower case.

    Raises:
        ArgumentInvalid: it is none; names ``field``.
    """
    lowered = text.lower()
    if _UUID.match(lowered) is None:
        shown = repr(text if len(text) <= 64 else f"{text[:64]}…")
        raise ArgumentInvalid(
            field,
            f"{shown} is no UUID",
            "give 32 hexadecimal digits as 8-4-4-4-12, such as an event's subject",
        )
    return lowered
