"""What the stream holds, asked of the broker: how many events, when stored, and how far the marks say."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client

from bench.errors import BenchError
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark

EVENTS = f"{fmt.ROOT}.{fmt.SHARD}.>"
POLL_S = 0.1
_TIMEOUT_S = 30


class StreamWatch:
    """Asks about one stream. It reads counts and times, so that watching costs the broker little."""

    def __init__(self, connection: Client, stream: str) -> None:
        self._connection = connection
        self._stream = stream

    async def events(self) -> int:
        """How many events are stored: all messages but the marks."""
        asked = {"subjects_filter": f"{fmt.ROOT}.{fmt.MARKS}.>"}
        state = (await self._ask(f"STREAM.INFO.{self._stream}", asked))["state"]
        return int(state["messages"]) - sum((state.get("subjects") or {}).values())

    async def last_sequence(self) -> int:
        """The sequence of the last message."""
        return int((await self._ask(f"STREAM.INFO.{self._stream}", {}))["state"]["last_seq"])

    async def first_event_at(self, after: int) -> float:
        """When the first event behind a sequence was stored, by the broker's clock, in seconds."""
        return _time_of(await self._message({"seq": after + 1, "next_by_subj": EVENTS}))

    async def last_event_at(self) -> float:
        """When the last event was stored, by the broker's clock, in seconds."""
        return _time_of(await self._message({"last_by_subj": EVENTS}))

    async def marked_lsn(self) -> int:
        """The WAL position up to which the last mark says that all is stored."""
        message = await self._message({"last_by_subj": fmt.POSITION_SUBJECT})
        return int(PositionMark.FromString(base64.b64decode(message["data"])).wal_lsn)

    async def until(self, check: Callable[[], Awaitable[bool]], what: str, stall_s: float = 60) -> None:
        """Returns once ``check`` gives true.

        Raises:
            BenchError: it does not, and the stream did not grow for ``stall_s`` seconds.
        """
        sequence, waited_s = -1, 0.0
        while not await check():
            now = await self.last_sequence()
            waited_s = 0.0 if now > sequence else waited_s + POLL_S
            sequence = now
            if waited_s > stall_s:
                raise BenchError(
                    f"{what}: nothing moved for {stall_s:g} s", "see the bridge's log (--data keeps it)"
                )
            await asyncio.sleep(POLL_S)

    async def _message(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer = await self._ask(f"STREAM.MSG.GET.{self._stream}", asked)
        return dict(answer["message"])

    async def _ask(self, subject: str, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._connection.request(
                f"$JS.API.{subject}", orjson.dumps(asked), timeout=_TIMEOUT_S
            )
        except (nats.errors.Error, OSError) as exc:
            raise BenchError(f"NATS gave no answer: {exc or type(exc).__name__}", "try again") from exc
        answer: dict[str, Any] = orjson.loads(reply.data)
        if "error" in answer:
            raise BenchError(f"NATS refused {subject}: {answer['error'].get('description')}")
        return answer


def _time_of(message: dict[str, Any]) -> float:
    return datetime.fromisoformat(str(message["time"])).timestamp()
