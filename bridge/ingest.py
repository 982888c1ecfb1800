"""Fast ingest: a run of messages that is acknowledged as a whole.

A publish that is acknowledged by itself costs a round trip. In a run the messages follow
each other on the wire, in order, and the answer to the last one says that all of them are
stored. The run is made with ``gap: fail``: when one message is refused or missing, nothing
after it is stored. What was stored before it stays, so a run that failed is over, and the
tail says how far it came.

Source: NATS ADR-50, "JetStream Batch Publishing" (fast ingest, nats-server 2.14): the reply
subject is ``<inbox>.<run>.<flow>.<ok|fail>.<number>.<operation>.$FI``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence

import nats.errors
import orjson
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from bridge.errors import Unreachable
from bridge.jetstream import JetStream, Outbound, parse_answer
from bridge.nats_wire import publish_command, send_raw

_START, _APPEND, _COMMIT = 0, 1, 2
_CHUNK_BYTES = 128 * 1024
_FLOW = 100
"""How often the broker says how far it is, in messages. Runs are short: nobody waits for it."""


class FastIngest(JetStream):
    """JetStream with runs, one after the other. ``open`` it first; ``allows_runs`` is the stream's setting."""

    def __init__(self, connection: NatsClient, stream: str, timeout_s: float) -> None:
        super().__init__(connection, stream, timeout_s)
        self._inbox = connection.new_inbox()
        self.allows_runs = False
        self._run = ""
        self._answer: asyncio.Future[bytes] | None = None

    async def open(self) -> None:
        """Begins to listen for answers. They end with the connection."""
        await self.listen(f"{self._inbox}.>", self._take)
        try:
            # Runs pass by nats-py's queue, and must not come before the subscription.
            await self.connection.flush(max(1, int(self.timeout_s)))
        except (nats.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc

    async def publish_run(self, messages: Sequence[Outbound]) -> int:
        """One message is published by itself, several as one run, where the stream allows it."""
        if len(messages) == 1 or not self.allows_runs:
            return await super().publish_run(messages)
        self._run = secrets.token_hex(8)
        self._answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.timeout_s):
                for chunk in self._chunks(messages):
                    await send_raw(self.connection, chunk)
                    if self._answer.done():  # refused already: what follows would be refused as well
                        break
                answer = parse_answer("a run", await self._answer)
                if "seq" not in answer:
                    raise Unreachable("NATS missed a message of a run")
                return int(answer["seq"])
        except TimeoutError as exc:
            raise Unreachable(f"NATS did not acknowledge a run within {self.timeout_s:g} s") from exc
        except (nats.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc

    def _chunks(self, messages: Sequence[Outbound]) -> Iterator[bytes]:
        """The run as the protocol's commands, so many together that the broker works while we write."""
        last = len(messages)
        head = f"{self._inbox}.{self._run}.{_FLOW}.fail."
        parts: list[bytes] = []
        size = 0
        for number, message in enumerate(messages, 1):
            operation = _COMMIT if number == last else _START if number == 1 else _APPEND
            command = publish_command(message, f"{head}{number}.{operation}.$FI")
            parts.append(command)
            size += len(command)
            if size >= _CHUNK_BYTES:
                yield b"".join(parts)
                parts = []
                size = 0
        if parts:
            yield b"".join(parts)

    async def _take(self, message: Msg) -> None:
        """Takes an answer: of the present run, and not one that only says how far it is."""
        run = message.subject.removeprefix(self._inbox + ".").partition(".")[0]
        if self._answer is None or self._answer.done() or run != self._run:
            return
        if orjson.loads(message.data).get("type") != "ack":
            self._answer.set_result(message.data)
