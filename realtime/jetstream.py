"""JetStream as the server reads it: the stream's state, single messages, pages of the past.

nats-py owns the connection. State and single messages are asked of the stream's leader;
pages come by batched direct get, which any replica may answer and which is ten times as
fast. Source: the NATS documentation, "JetStream wire API reference", and ADR-31 (direct get).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client as NatsClient

from protos.events.v1 import stream_format as fmt
from realtime.entry import Entry
from realtime.errors import SourceUnavailable, StreamInvalid
from realtime.page import Page, parse_time_ns
from realtime.tap import listen

_NO_MESSAGE = 10037
_STREAM_NOT_FOUND = 10059
PAGE_MESSAGES = 1024
PAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream as its leader says."""

    epoch: str
    first_sequence: int
    last_sequence: int


class StreamReader:
    """Reads one stream over one connection."""

    def __init__(self, connection: NatsClient, stream: str, timeout_s: float = 5) -> None:
        self.connection = connection
        self.stream = stream
        self.timeout_s = timeout_s

    async def state(self) -> StreamState:
        """Epoch and bounds.

        Raises:
            SourceUnavailable: the broker does not answer, or the bridge has not made the stream yet.
            StreamInvalid: it is not a stream of Zephyr's.
        """
        info = await self.api(f"STREAM.INFO.{self.stream}")
        metadata = info["config"].get("metadata") or {}
        epoch = metadata.get(fmt.EPOCH_KEY, "")
        if metadata.get(fmt.FORMAT_KEY) != fmt.FORMAT or not epoch:
            raise StreamInvalid(
                f"the stream {self.stream!r} was not made by a bridge of this version",
                "name the right one with ZEPHYR_STREAM",
            )
        return StreamState(epoch, int(info["state"]["first_seq"]), int(info["state"]["last_seq"]))

    async def timestamp_ns(self, sequence: int) -> int | None:
        """The broker's time of the message at ``sequence``; None when no message stands there."""
        body = {"seq": sequence}
        answer = await self._request(f"STREAM.MSG.GET.{self.stream}", body)
        error = answer.get("error")
        if error is None:
            return parse_time_ns(answer["message"]["time"])
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise SourceUnavailable(f"the broker refused to give a message: {error.get('description')}")

    async def page(
        self, epoch: str, after: int, messages: int = PAGE_MESSAGES, size: int = PAGE_BYTES
    ) -> list[Entry]:
        """The messages after a sequence, in order: at most so many, fewer when they have more bytes.

        Raises:
            SourceUnavailable: the broker did not answer in time.
        """
        arrived = asyncio.Event()
        page = Page(epoch, arrived.set)
        inbox = self.connection.new_inbox()
        body = {"seq": after + 1, "batch": messages, "max_bytes": size}
        try:
            listening = await listen(self.connection, inbox, page.sink)
            try:
                await self.connection.publish(
                    f"$JS.API.DIRECT.GET.{self.stream}", orjson.dumps(body), reply=inbox
                )
                while not page.is_whole:
                    arrived.clear()
                    async with asyncio.timeout(self.timeout_s):
                        await arrived.wait()
                    page.read()
            finally:
                await listening.close()
        except (nats.errors.Error, OSError) as exc:  # a timeout is an OSError
            raise SourceUnavailable(
                f"NATS did not give a page of the stream: {exc or type(exc).__name__}"
            ) from exc
        if page.failure:
            raise SourceUnavailable(page.failure)
        return page.entries

    async def api(self, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JSON API.

        Raises:
            SourceUnavailable: no answer, or a refusal.
        """
        answer = await self._request(request, body)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") == _STREAM_NOT_FOUND:
            raise SourceUnavailable(
                f"there is no stream {self.stream!r} yet",
                "start the bridge, or name the stream with ZEPHYR_STREAM",
            )
        raise SourceUnavailable(f"the broker refused {request}: {error.get('description')}")

    async def _request(self, request: str, body: dict[str, Any] | None) -> dict[str, Any]:
        payload = orjson.dumps(body) if body is not None else b""
        try:
            message = await self.connection.request(f"$JS.API.{request}", payload, timeout=self.timeout_s)
        except (nats.errors.Error, OSError) as exc:
            raise SourceUnavailable(f"NATS does not answer: {exc or type(exc).__name__}", "start it") from exc
        _raise_if_cancelled()
        return dict(orjson.loads(message.data))


def _raise_if_cancelled() -> None:
    """Raises the cancellation that asyncio.wait_for, under nats-py, swallows when the answer came with it.

    Python 3.11 does so; 3.12 does not any more.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
