"""A session with Postgres: psycopg's errors become the harness' own here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from bench.errors import BenchError

Session = psycopg.AsyncConnection[tuple[object, ...]]


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[Session]:
    """A connection that commits each statement.

    Raises:
        BenchError: Postgres went away or refused a statement.
    """
    try:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            yield connection
    except psycopg.Error as exc:
        said = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
        raise BenchError(f"Postgres failed: {said}", "see its log (--data keeps it)") from exc
