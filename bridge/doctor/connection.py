"""A connection to NATS for one question or a few; one that was refused leaves nothing open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import nats.errors
from nats.aio.client import Client as NatsClient

from bridge.errors import Unreachable


@contextlib.asynccontextmanager
async def connected(
    url: str, timeout_s: float, on_error: Callable[[str], None] = lambda _: None
) -> AsyncIterator[NatsClient]:
    """A connection, closed at the end. ``on_error`` is told what the broker complains of meanwhile.

    Raises:
        Unreachable: nobody answers, or the connection was refused.
    """
    causes: list[str] = []

    async def hear(error: Exception) -> None:
        causes[:] = [str(error) or type(error).__name__]
        on_error(causes[0])

    # Not nats.connect: it keeps the socket of a connection that was refused.
    client = NatsClient()
    try:
        try:
            await client.connect(
                url,
                name="zephyr-doctor",
                allow_reconnect=False,
                connect_timeout=max(1, int(timeout_s)),
                # These count for the first connection too, whatever allow_reconnect says.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=hear,
            )
        except (nats.errors.Error, OSError, ValueError) as exc:
            cause = causes[0] if causes else str(exc) or type(exc).__name__
            raise Unreachable(
                f"NATS cannot be reached at {url.rsplit('@', 1)[-1]}: {cause}",
                "start it, or correct ZEPHYR_NATS_URL",
            ) from exc
        yield client
    finally:
        await client.close()
