"""CloudEvents that plain NATS clients ask servers to store: one request, one answer in JSON.

Servers share the work as one queue group. At most so many requests are under way in a server; what comes beyond is
told so at once. A request without a reply subject is stored all the same, and what was wrong is told to the log.
What is stored, and by which rules: exactly as ``PublisherService.Publish`` has it.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from protos.events.v1 import stream_format as fmt
from realtime.errors import LimitExceeded, RealtimeError, SourceUnavailable, Unavailable
from realtime.publish import rules
from realtime.publish.access import admit
from realtime.publish.cloud_event import CloudEvent, read_cloud_event
from realtime.publish.draft import quoted
from realtime.publish.publisher import Publisher
from realtime.publish.together import store_together
from realtime.status import from_error, to_error

log = structlog.get_logger("publish")

QUEUE = "zephyr-publish"
SUBJECT = fmt.publish_subject("*", "*", "*")
MOST_REQUESTS = 256
_MOST_BYTES = 32 * 1024 * 1024
_MOST_WAITING = 16_384
"""What nats-py read and ``take`` has not seen: a read of the socket has far fewer. Beyond it nats-py drops."""
_ANSWER_S = 10.0
_DRAIN_S = 5.0
_LOG_EVERY_S = 10.0
_DELIVERED = "$JS."
"""Begins the reply subject of what a consumer delivered: a stored message, which nobody asks to store."""


class CloudEventRequests:
    """Of one server, on a connection of its own. ``run`` it; ``drain`` before the end."""

    def __init__(self, connection: NatsClient, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._requests = 0
        self.unanswered = 0
        """How many failed that had nobody to tell."""
        self._told = 0
        self._told_at = 0.0

    async def run(self) -> None:
        """Until it is drained.

        Raises:
            SourceUnavailable: the connection is gone for good.
        """
        allowance = self._publisher.allowance
        async with asyncio.TaskGroup() as tasks:

            async def take(message: Msg) -> None:
                size = len(message.data)
                if message.reply.startswith(_DELIVERED):
                    self._count("a consumer delivers to the subjects of requests")
                elif self._requests >= MOST_REQUESTS or not allowance.take(size):
                    text = "too many requests are under way in this server"
                    await self._answer(
                        message, _refusal(LimitExceeded(text, "try again, and send fewer at once"))
                    )
                else:
                    self._requests += 1
                    self._idle.clear()
                    tasks.create_task(self._serve(message))

            try:
                subscription = await self._connection.subscribe(
                    SUBJECT,
                    QUEUE,
                    cb=take,
                    pending_msgs_limit=_MOST_WAITING,
                    pending_bytes_limit=_MOST_BYTES,
                )
                await self._connection.flush()
            except (nats.errors.Error, OSError) as exc:
                raise SourceUnavailable(f"NATS went away: {exc or type(exc).__name__}", "start it") from exc
            try:
                await self._stopping.wait()
            finally:
                if self._connection.is_connected:
                    await subscription.unsubscribe()

    async def drain(self) -> None:
        """Takes no more, and waits for what is under way."""
        self._stopping.set()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("requests to publish are cut off", requests=self._requests)

    async def _serve(self, message: Msg) -> None:
        try:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    answer = _stored(await self._store(message))
            except TimeoutError:
                text = "the broker did not answer in time: it may be stored or not"
                answer = _refusal(Unavailable(text, "try again, with the same ce-id and ce-source"))
            except RealtimeError as exc:
                answer = _refusal(exc)
            except Exception as exc:  # told as INTERNAL
                log.error("publishing failed", exc_info=exc)
                answer = _refusal(exc)
            await self._answer(message, answer)
        finally:
            self._requests -= 1
            self._publisher.allowance.give_back(len(message.data))
            if not self._requests:
                self._idle.set()

    async def _store(self, message: Msg) -> pb.Stored:
        publisher = self._publisher
        headers = message.headers or {}
        await publisher.ready()
        tokens = [
            ("authorization", value) for name, value in headers.items() if name.lower() == "authorization"
        ]
        access = await admit(publisher.policy, tokens)
        asked = read_cloud_event(message.subject, headers, message.data, publisher.drafter.payloads)
        rules.check(asked.request)
        known_by = f"Nats-Msg-Id: {_message_id(access.caller.id, asked)}\r\n"
        more = known_by + asked.kept
        event = asked.request.event
        item = publisher.item(access, event, None, 1, asked.event_id, asked.source, more=more)
        await store_together(publisher, [item], known_by)
        return (await publisher.stored([item]))[0]

    async def _answer(self, message: Msg, answer: dict[str, Any]) -> None:
        if not message.reply:
            if "error" in answer:
                self._count(answer["error"]["message"])
            return
        try:
            await self._connection.publish(message.reply, orjson.dumps(answer))
        except (nats.errors.Error, OSError) as exc:
            self._count(f"the answer could not be sent: {exc or type(exc).__name__}")

    def _count(self, cause: str) -> None:
        """Logs now and then, with how many there were."""
        self.unanswered += 1
        now = asyncio.get_running_loop().time()
        if not self._told or now - self._told_at > _LOG_EVERY_S:
            log.warning(
                "requests to publish failed, and nobody is told",
                cause=cause,
                count=self.unanswered - self._told,
            )
            self._told, self._told_at = self.unanswered, now


def _message_id(caller: str, asked: CloudEvent) -> str:
    """What the broker knows the request by. An event is the same when its source and its id are."""
    return f"ce/{quoted(caller)}/{quoted(asked.source)}/{quoted(asked.request.request_id)}"


def _stored(stored: pb.Stored) -> dict[str, Any]:
    return {
        "cursor": base64.b64encode(stored.cursor).decode(),
        "sequence": stored.sequence,
        "version": stored.version,
        "event_id": stored.event_id,
        "repeated": stored.repeated,
    }


def _refusal(exc: BaseException) -> dict[str, Any]:
    """The error as a gRPC client is told it, in JSON."""
    error = from_error(to_error(exc))
    said: dict[str, Any] = {
        "code": codes.ErrorCode.Name(error.code).removeprefix("ERROR_CODE_"),
        "reason": error.reason,
        "message": error.message,
    }
    if error.mend:
        said["mend"] = error.mend
    if error.violations:
        said["violations"] = [{"field": field, "description": text} for field, text in error.violations]
    return {"error": said}
