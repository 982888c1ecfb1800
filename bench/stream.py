"""What the stream holds, asked of the broker: how many events, when stored, and how far the marks say."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from bench.errors import BenchError
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark
from zephyr.stack.part import PartProcess

EVENTS = f"{fmt.ROOT}.{fmt.SHARD}.>"
POLL_S = 0.1
_TIMEOUT_S = 30
_NO_MESSAGE = 10037


class _NoMessage(BenchError):
    pass


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it stands in the stream, without its payload."""

    subject: str
    commit: fmt.CommitPlace
    stored_at: float


class StreamWatch:
    """Asks about the stream that a bridge writes. Until it reads events back, watching costs the broker little."""

    def __init__(self, connection: Client, stream: str, bridge: PartProcess) -> None:
        self._connection = connection
        self._stream = stream
        self._bridge = bridge

    async def events(self) -> int:
        """How many events are stored: all messages but the marks."""
        asked = {"subjects_filter": f"{fmt.ROOT}.{fmt.MARKS}.>"}
        state = (await self._ask(f"STREAM.INFO.{self._stream}", asked))["state"]
        return int(state["messages"] - sum((state.get("subjects") or {}).values()))

    async def entities(self) -> int:
        """How many entities the events are of: all subjects but the marks'."""
        asked = {"subjects_filter": f"{fmt.ROOT}.{fmt.MARKS}.>"}
        state = (await self._ask(f"STREAM.INFO.{self._stream}", asked))["state"]
        return int(state["num_subjects"]) - len(state.get("subjects") or {})

    async def last_event_at(self) -> float:
        """When the last event was stored, by the broker's clock, in seconds."""
        message = await self._message({"last_by_subj": EVENTS})
        return datetime.fromisoformat(str(message["time"])).timestamp()

    async def last_event_sequence(self) -> int:
        """The sequence of the last event."""
        return int((await self._message({"last_by_subj": EVENTS}))["seq"])

    async def last_sequence(self) -> int:
        """The sequence of the last message."""
        return int((await self._ask(f"STREAM.INFO.{self._stream}", {}))["state"]["last_seq"])

    async def marked_lsn(self) -> int:
        """The WAL position up to which the last mark says that all is stored."""
        message = await self._message({"last_by_subj": fmt.POSITION_SUBJECT})
        return int(PositionMark.FromString(base64.b64decode(message["data"])).wal_lsn)

    async def until(self, check: Callable[[], Awaitable[bool]], what: str, stall_s: float = 60) -> None:
        """Returns once ``check`` gives true.

        Raises:
            BenchError: the bridge ended, or the stream did not grow for ``stall_s`` seconds.
        """
        sequence, waited_s = -1, 0.0
        while not await check():
            if not self._bridge.is_running:
                raise BenchError(
                    f"the bridge ended: {self._bridge.log.cause()}", "see its log (--data keeps it)"
                )
            now = await self.last_sequence()
            waited_s = 0.0 if now > sequence else waited_s + POLL_S
            sequence = now
            if waited_s > stall_s:
                raise BenchError(
                    f"{what}: nothing moved for {stall_s:g} s", "see the bridge's log (--data keeps it)"
                )
            await asyncio.sleep(POLL_S)

    async def until_marked(self, lsn: int, what: str) -> None:
        """Returns once a mark says that all up to ``lsn`` is stored: whatever comes is there by then.

        Raises:
            BenchError: as ``until``.
        """

        async def is_marked() -> bool:
            return await self.marked_lsn() >= lsn

        await self.until(is_marked, what)

    async def until_events(self, events: int, what: str) -> None:
        """Returns once so many events are stored.

        Raises:
            BenchError: as ``until``.
        """

        async def are_stored() -> bool:
            return await self.events() >= events

        await self.until(are_stored, what)

    async def read(self, after: int) -> AsyncIterator[Stored]:
        """The events behind a sequence, to the stream's end. Nobody may write meanwhile but marks.

        Raises:
            BenchError: the broker does not hand them over.
        """
        if await self._is_empty(after):
            return
        consumer = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1, headers_only=True
        )
        try:
            subscription = await self._connection.jetstream().subscribe(
                EVENTS, stream=self._stream, ordered_consumer=True, config=consumer
            )
            try:
                left = 1
                while left:
                    message = await subscription.next_msg(_TIMEOUT_S)
                    left = message.metadata.num_pending
                    place = (message.headers or {}).get(fmt.COMMIT)
                    if place is not None:  # else somebody published it
                        commit = fmt.parse_commit(place)
                        yield Stored(message.subject, commit, message.metadata.timestamp.timestamp())
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError) as exc:
            raise BenchError(f"NATS did not hand over the events: {exc or type(exc).__name__}") from exc

    async def _is_empty(self, after: int) -> bool:
        try:
            await self._message({"seq": after + 1, "next_by_subj": EVENTS})
        except _NoMessage:
            return True
        return False

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
        if (answer.get("error") or {}).get("err_code") == _NO_MESSAGE:
            raise _NoMessage("the stream holds no such message")
        if "error" in answer:
            raise BenchError(f"NATS refused {subject}: {answer['error'].get('description')}")
        return answer
