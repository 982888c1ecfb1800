"""JetStream's request API, as far as the bridge speaks it.

nats-py owns the connection; what it has no words for (the fence's headers, stream
settings of newer servers, reading through the leader) is said here in the API's own JSON.
Source: the NATS documentation, "JetStream wire API reference", and ADR-50 for the fence.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats
import nats.errors
import orjson
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from bridge.batch import INCOMPLETE, TOO_MANY_OPEN, send_batch
from bridge.errors import BridgeError, Unreachable
from bridge.outgoing import Outgoing, headers_of

NO_MESSAGE = 10037
STORE_BUSY = 10049
STREAM_NOT_FOUND = 10059
FENCED = 10071
"""Error codes of the API: no such message, no store for a stream, no such stream, wrong last sequence of a subject."""
_RETRY_AFTER_S = 0.05
_UNAVAILABLE = 503
"""Status of an answer: no leader, or no resources, at the moment."""


class JetStreamError(BridgeError):
    """The broker refused a request; ``error_code`` is JetStream's own."""

    def __init__(self, what: str, error_code: int, description: str) -> None:
        super().__init__(f"the broker refused {what}: {description} (error {error_code})")
        self.error_code = error_code


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream's leader holds it."""

    sequence: int
    subject: str
    headers: dict[str, str]
    payload: bytes


class JetStream:
    """Requests to one stream's leader over one connection."""

    def __init__(self, connection: NatsClient, stream: str, timeout_s: float) -> None:
        self.connection = connection
        self.stream = stream
        self.timeout_s = timeout_s

    @property
    def max_payload(self) -> int:
        """The most bytes that the broker takes as one message."""
        return int(self.connection.max_payload)

    @property
    def supports_runs(self) -> bool:
        """Whether the broker knows fast ingest (nats-server 2.14)."""
        version = self.connection.connected_server_version
        return (version.major, version.minor) >= (2, 14)

    async def listen(self, subject: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Has ``take`` called with each message of a subject, as long as the connection lives.

        Raises:
            Unreachable: it is gone already.
        """
        try:
            await self.connection.subscribe(subject, cb=take)
        except (nats.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc

    async def api(self, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JSON API.

        Raises:
            JetStreamError: the broker refused it.
            Unreachable: no answer in time, or the connection is gone.
        """
        payload = orjson.dumps(body) if body is not None else b""
        return parse_answer(request, await self._request(f"$JS.API.{request}", payload, None))

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Stores one message; gives its sequence.

        Raises:
            JetStreamError: refused; ``FENCED`` when the owner is another.
            Unreachable: no answer: the message may be stored or not.
        """
        return int(parse_answer("a message", await self._request(subject, payload, headers))["seq"])

    async def publish_run(self, messages: Sequence[Outgoing], head: str = "") -> int:
        """Stores messages in order, each with the headers ``head`` beside its own; gives the last's sequence.

        Raises:
            JetStreamError: one was refused; those before it may be stored, none after it is.
            Unreachable: no answer: any number of them may be stored, in order.
        """
        sequence = 0
        for message in messages:
            headers = headers_of(message.head + head)
            sequence = await self.publish(message.subject, message.payload, headers)
        return sequence

    async def publish_batch(self, messages: Sequence[Outgoing], head: str = "") -> int:
        """Stores all of the messages in order or none of them; gives the last's sequence.

        Raises:
            JetStreamError: refused; ``FENCED`` when the owner is another. Nothing of it is stored.
            Unreachable: no answer: all of it may be stored, or nothing.
        """
        until = time.monotonic() + self.timeout_s
        while True:
            answer = await send_batch(self.connection, messages, head, self.timeout_s)
            _raise_if_cancelled()
            try:
                return int(parse_answer("a batch", answer)["seq"])
            except JetStreamError as exc:
                if exc.error_code not in (INCOMPLETE, TOO_MANY_OPEN) or time.monotonic() >= until:
                    raise
            # Others have as many batches open as the broker allows: nothing was stored.
            await asyncio.sleep(_RETRY_AFTER_S)

    async def get(self, query: dict[str, Any]) -> StoredMessage | None:
        """STREAM.MSG.GET, which the leader answers; None when there is no such message."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{self.stream}", query)
        except JetStreamError as exc:
            if exc.error_code == NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        return StoredMessage(
            int(message["seq"]),
            str(message["subject"]),
            parse_headers(base64.b64decode(message.get("hdrs", ""))),
            base64.b64decode(message.get("data", "")),
        )

    async def last(self, subject: str) -> StoredMessage | None:
        """The last message of a subject."""
        return await self.get({"last_by_subj": subject})

    async def at(self, sequence: int) -> StoredMessage | None:
        """The message of a sequence; None when it is not there any more."""
        return await self.get({"seq": sequence})

    async def next(self, subject: str, sequence: int) -> StoredMessage | None:
        """The first message of a subject (wildcards allowed) at or after a sequence."""
        return await self.get({"seq": sequence, "next_by_subj": subject})

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> bytes:
        try:
            message = await self.connection.request(subject, payload, timeout=self.timeout_s, headers=headers)
        except nats.errors.NoRespondersError as exc:
            raise Unreachable(
                "NATS has no JetStream, or the stream's leader is away", "start nats-server with -js"
            ) from exc
        except nats.errors.TimeoutError as exc:
            raise Unreachable(f"NATS gave no answer within {self.timeout_s:g} s") from exc
        except (nats.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc}") from exc
        _raise_if_cancelled()
        return bytes(message.data)


async def connect_nats(
    url: str, timeout_s: float, on_closed: Callable[[], Awaitable[None]] | None = None
) -> NatsClient:
    """Connects for one term: a connection that breaks is not mended, it ends the term.

    ``on_closed`` is called when it broke or was closed.

    Raises:
        Unreachable: nobody answers, or the connection was refused.
    """
    causes: list[Exception] = []

    async def note(error: Exception) -> None:
        # nats-py prints errors otherwise. Later, each request that one concerns fails by itself.
        causes[:] = [error]

    try:
        connection = await nats.connect(
            url,
            name="zephyr-bridge",
            allow_reconnect=False,
            connect_timeout=max(1, int(timeout_s)),
            # These count for the first connection too, whatever allow_reconnect says.
            max_reconnect_attempts=1,
            reconnect_time_wait=_RETRY_AFTER_S,
            error_cb=note,
            closed_cb=on_closed,
            ping_interval=10,
            max_outstanding_pings=2,
        )
    except (nats.errors.Error, OSError, ValueError) as exc:
        cause = causes[-1] if causes and isinstance(exc, nats.errors.NoServersError) else exc
        raise Unreachable(
            f"NATS cannot be reached at {url.rsplit('@', 1)[-1]}: {cause or type(cause).__name__}",
            "start it, or correct ZEPHYR_NATS_URL",
        ) from exc
    try:
        _raise_if_cancelled()
    except asyncio.CancelledError:
        await connection.close()
        raise
    return connection


def _raise_if_cancelled() -> None:
    """Raises the cancellation that asyncio.wait_for, under nats-py, swallows when the answer came with it.

    Python 3.11 does so; 3.12 does not any more. A bridge that was told to stop would go on otherwise.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def parse_headers(data: bytes) -> dict[str, str]:
    """The headers of a stored message (``NATS/1.0`` and one line each)."""
    headers = {}
    for line in data.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


def parse_answer(what: str, data: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise Unreachable(f"NATS answered {what} with what is no JSON") from exc
    error = answer.get("error")
    if error is not None:
        if error.get("code") == _UNAVAILABLE:
            raise Unreachable(
                f"JetStream is not available now: {error.get('description')}", "see the broker's log"
            )
        raise JetStreamError(what, int(error.get("err_code", 0)), str(error.get("description", "")))
    return dict(answer)
