"""What is published, to JetStream: single messages and atomic batches, each with its own answer.

nats-py owns the connection; commands are written to it as one piece, and answers are read from the
bytes (``tap.py``). An answer that does not come says nothing: the message may be stored or not.

Source: the NATS documentation, "JetStream wire API reference" (PubAck), and ADR-50 (atomic batches).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import nats.errors
import orjson
from nats.aio.client import Client as NatsClient

from realtime.errors import RealtimeError, SourceUnavailable
from realtime.lean import Sink
from realtime.publish.commands import Message, batch_commands, single_command
from realtime.tap import Listening, listen

WRONG_LAST = 10071
WRONG_LAST_ID = 10070
INCOMPLETE = 10176
DUPLICATE = 10201
"""Error codes: wrong last sequence of a subject, wrong last message id, a batch lost a message, an id in it is known."""
_BATCHES = 20
"""The broker holds 50 open batches of a stream, of all servers together."""
_UNAVAILABLE = 503
ANSWER_S = 5.0
"""An answer that has not come by then is lost."""


class Refused(RealtimeError):
    """The broker refused it, and nothing of it is stored. ``error_code`` is JetStream's; ``is_temporary``: not now."""

    def __init__(self, error_code: int, description: str, *, is_temporary: bool = False) -> None:
        super().__init__(f"the broker refused it: {description} (error {error_code})", "see the broker's log")
        self.error_code = error_code
        self.is_temporary = is_temporary


class NoAnswer(SourceUnavailable):
    """It may be stored or not."""


class Ack:
    """Where it is stored: ``sequence`` of the last message, of ``count``; ``is_duplicate``: an earlier call did it."""

    __slots__ = ("count", "is_duplicate", "sequence")

    def __init__(self, sequence: int, count: int = 1, is_duplicate: bool = False) -> None:
        self.sequence = sequence
        self.count = count
        self.is_duplicate = is_duplicate


class Broker:
    """Stores messages over one connection. ``open`` it first."""

    def __init__(self, connection: NatsClient, timeout_s: float | None = None) -> None:
        self._connection = connection
        self._timeout_s = timeout_s or ANSWER_S
        self._batches = asyncio.Semaphore(_BATCHES)
        self._process = secrets.token_hex(8)
        self._number = 0
        self._inbox = ""
        self._sink = Sink(self._arrived)
        self._waiting: dict[int, asyncio.Future[Ack]] = {}
        self._listening: Listening | None = None

    @property
    def max_payload(self) -> int:
        """The most bytes that the broker takes as one message, its headers included."""
        return int(self._connection.max_payload)

    async def open(self) -> None:
        """Listens to answers.

        Raises:
            SourceUnavailable: the connection is gone already.
        """
        self._inbox = self._connection.new_inbox()
        try:
            self._listening = await listen(self._connection, f"{self._inbox}.*", self._sink)
            await self._connection.flush()
        except (nats.errors.Error, OSError) as exc:
            raise SourceUnavailable(f"NATS went away: {exc or type(exc).__name__}", "start it") from exc

    async def close(self) -> None:
        """Whoever waits for an answer gets none."""
        self.connection_lost()
        if self._listening is not None:
            await self._listening.close()

    def connection_lost(self) -> None:
        """Answers to what was sent come no more."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(NoAnswer("NATS went away", "try again"))

    async def publish(self, message: Message) -> Ack:
        """Stores one message.

        Raises:
            Refused: it is not stored.
            NoAnswer: it may be.
            SourceUnavailable: it was not sent.
        """
        number = self._next()
        return await self._send(single_command(message, f"{self._inbox}.{number}"), number)

    async def store(self, messages: Sequence[Message]) -> Ack:
        """Stores all of the messages, or none: an atomic batch, in which they follow each other.

        Raises:
            Refused: none is stored.
            NoAnswer: all may be.
            SourceUnavailable: nothing was sent.
        """
        async with self._batches:
            number = self._next()
            batch = f"{self._process}.{number}"
            return await self._send(batch_commands(messages, batch, f"{self._inbox}.{number}"), number)

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _send(self, commands: bytes, number: int) -> Ack:
        connection = self._connection
        transport = connection._transport
        if not connection.is_connected or transport is None:
            raise SourceUnavailable("NATS is away", "try again")
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(self._timeout_s):
                transport.write(commands)
                await transport.drain()  # type: ignore[no-untyped-call]
                return await future
        except TimeoutError as exc:
            raise NoAnswer(f"NATS gave no answer within {self._timeout_s:g} s", "try again") from exc
        except (nats.errors.Error, OSError) as exc:
            raise NoAnswer(f"NATS went away: {exc or type(exc).__name__}", "try again") from exc
        finally:
            self._waiting.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # it was told by another error

    def _arrived(self) -> None:
        for subject, _, headers, payload in self._sink.take():
            number = subject.rpartition(b".")[2]
            future = self._waiting.get(int(number)) if number.isdigit() else None
            if future is None or future.done():
                continue
            try:
                future.set_result(_read(headers, payload))
            except RealtimeError as exc:
                future.set_exception(exc)


def _read(headers: bytes, payload: bytes) -> Ack:
    if not payload and headers.startswith(b"NATS/1.0 503"):
        raise Refused(0, "there is no stream, or it has no leader", is_temporary=True)
    try:
        answer = orjson.loads(payload)
        error = answer.get("error")
        if error is None:
            return Ack(
                int(answer["seq"]), int(answer.get("count", 1)), is_duplicate=bool(answer.get("duplicate"))
            )
        code = int(error.get("err_code", 0))
        raise Refused(
            code,
            str(error.get("description", "")),
            is_temporary=error.get("code") == _UNAVAILABLE or code == INCOMPLETE,
        )
    except (orjson.JSONDecodeError, KeyError, AttributeError, ValueError) as exc:
        raise NoAnswer("NATS' answer is not understood", "see the broker's log") from exc
