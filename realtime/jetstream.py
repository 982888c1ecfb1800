"""JetStream as the server reads it: the stream's state, single messages, pages of the past.

nats-py owns the connection. State and single messages are asked of the stream's leader;
pages come by batched direct get, which any replica may answer and which is ten times as
fast. Source: the NATS documentation, "JetStream wire API reference", and ADR-31 (direct get).
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from time import gmtime, strftime
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
_LAST_TIME_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream as its leader says."""

    epoch: str
    first_sequence: int
    last_sequence: int
    first_timestamp_ns: int = 0
    """0 when the stream is empty."""
    last_timestamp_ns: int = 0
    """Of the last message that was stored, though it may be gone."""


@dataclass(frozen=True, slots=True)
class LastMessage:
    """The last message of a subject."""

    sequence: int
    timestamp_ns: int
    payload: bytes


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
        state = info["state"]
        return StreamState(
            epoch,
            int(state["first_seq"]),
            int(state["last_seq"]),
            max(0, parse_time_ns(state["first_ts"])),
            max(0, parse_time_ns(state["last_ts"])),
        )

    async def timestamp_ns(self, sequence: int) -> int | None:
        """The broker's time of the message at ``sequence``; None when no message stands there."""
        message = await self._message({"seq": sequence})
        return None if message is None else parse_time_ns(message["time"])

    async def first_since(self, timestamp_ns: int) -> int | None:
        """The sequence of the first message stored at or after a time; None when there is none."""
        message = await self._message({"start_time": format_time_ns(timestamp_ns), "next_by_subj": ">"})
        return None if message is None else int(message["seq"])

    async def last_stored(self) -> int:
        """The sequence of the last message that is left; 0 when there is none. The stream's own last sequence
        may be of one that was removed."""
        message = await self._message({"last_by_subj": ">"})
        return 0 if message is None else int(message["seq"])

    async def next_sequence(self, after: int, subject: str = ">") -> int | None:
        """The sequence of the first message of a subject (wildcards too) after another; None when there is none."""
        message = await self._message({"seq": after + 1, "next_by_subj": subject})
        return None if message is None else int(message["seq"])

    async def page(
        self,
        epoch: str,
        after: int,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        subject: str = "",
    ) -> list[Entry]:
        """The messages after a sequence, in order: at most so many, fewer when they have more bytes. With
        ``subject`` (wildcards too) only its own, found by the broker's index.

        Raises:
            SourceUnavailable: the broker did not answer in time.
        """
        arrived = asyncio.Event()
        page = Page(epoch, arrived.set)
        inbox = self.connection.new_inbox()
        body: dict[str, Any] = {"seq": after + 1, "batch": messages, "max_bytes": size}
        if subject:
            body["next_by_subj"] = subject
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

    async def last(self, subject: str) -> LastMessage | None:
        """The last message of a subject, as the leader has it; None when there is none."""
        message = await self._message({"last_by_subj": subject})
        if message is None:
            return None
        return LastMessage(
            int(message["seq"]), parse_time_ns(message["time"]), base64.b64decode(message.get("data", ""))
        )

    async def _message(self, query: dict[str, Any]) -> dict[str, Any] | None:
        """One message, as the leader gives it; None when there is none."""
        answer = await self._request(f"STREAM.MSG.GET.{self.stream}", query)
        error = answer.get("error")
        if error is None:
            return dict(answer["message"])
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise SourceUnavailable(f"the broker refused to give a message: {error.get('description')}")

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


def format_time_ns(timestamp_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC. Times that the broker cannot hold become the nearest that it can."""
    seconds, fraction = divmod(min(max(timestamp_ns, 0), _LAST_TIME_NS), 1_000_000_000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{fraction:09d}Z"
