"""The dead-letter stream: rows that could not become events, each stored once.

A letter is stored before its marker, so a marker without a letter cannot be; a crash between
the two has the row read again, and its subject, which names its place in the source, refuses
the second copy. Large letters are stored in parts. The stream is made when the first letter
comes.

Source for the refusal: the NATS documentation, "JetStream headers":
``Nats-Expected-Last-Subject-Sequence: 0`` is stored only while the subject has no message.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from bridge.errors import StreamUnfit
from bridge.jetstream import FENCED, STREAM_NOT_FOUND, JetStream, JetStreamError
from protos.events.v1 import stream_format as fmt
from protos.events.v1.rejected_pb2 import DeadLetter

PART = "Zephyr-Part"
_PART_BYTES = 512 * 1024
"""Well below any ``max_payload``: the least that a broker is set to in practice is 1 MiB."""
_MAX_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter as it stands in the stream. ``sequence`` is that of its first part."""

    sequence: int
    letter: DeadLetter


def place_of(letter: DeadLetter) -> str:
    """Where in the source the row stood, as a token: unique in an epoch.

    A copy of the tables has no index: its rows are told apart by table and key.
    """
    if letter.rejected.verb != fmt.READ or letter.rejected.table == fmt.EVENT_PREFIX:
        return f"{letter.commit_lsn:X}-{letter.index}"
    row = hashlib.blake2b(f"{letter.rejected.table} {letter.key}".encode(), digest_size=8)
    return f"{letter.commit_lsn:X}-r{row.hexdigest()}"


class DeadLetters:
    """The dead letters of one event stream. ``jetstream`` is any connection's; its stream is not used."""

    def __init__(self, jetstream: JetStream, event_stream: str, replicas: int = 1) -> None:
        self.stream = f"{event_stream}_DEAD"
        self._jetstream = JetStream(jetstream.connection, self.stream, jetstream.timeout_s)
        self._replicas = replicas
        self._is_there = False

    async def store(self, epoch: str, letter: DeadLetter) -> None:
        """Stores a letter; one that is there already stays as it is.

        Raises:
            StreamUnfit: the stream cannot be made.
            Unreachable: no answer. It may be stored, in part or whole; store it again.
        """
        await self._make()
        body = letter.SerializeToString()
        parts = [body[at : at + _PART_BYTES] for at in range(0, len(body), _PART_BYTES)] or [b""]
        place = place_of(letter)
        for number, part in enumerate(parts, 1):
            subject = f"{fmt.DEAD_LETTERS}.{fmt.SHARD}.{epoch}.{letter.kind}.{place}.{number}"
            headers = {
                fmt.ID: letter.id,
                PART: f"{number}/{len(parts)}",
                fmt.FENCE_SEQUENCE: "0",
            }
            try:
                await self._jetstream.publish(subject, part, headers)
            except JetStreamError as exc:
                if exc.error_code != FENCED:  # there already
                    raise StreamUnfit(
                        f"a dead letter cannot be stored: {exc.message}",
                        f"see: nats stream info {self.stream}",
                    ) from exc

    async def read(self, after: int = 0) -> AsyncGenerator[Kept, None]:
        """The letters after a sequence, in the order in which they came; none when there is no stream.

        One of which a part is missing (a limit took it) is passed over.
        """
        parts: list[bytes] = []
        first = 0
        pattern = f"{fmt.DEAD_LETTERS}.>"
        while True:
            try:
                message = await self._jetstream.next(pattern, after + 1)
            except JetStreamError as exc:
                if exc.error_code == STREAM_NOT_FOUND:
                    return
                raise
            if message is None:
                return
            after = message.sequence
            number, _, count = message.headers.get(PART, "1/1").partition("/")
            if number == "1":
                parts, first = [], message.sequence
            parts.append(message.payload)
            if number == count and len(parts) == int(count):
                try:
                    yield Kept(first, DeadLetter.FromString(b"".join(parts)))
                except DecodeError as exc:
                    raise StreamUnfit(
                        f"the dead letter at sequence {first} cannot be read",
                        f"see who else writes to {pattern}",
                    ) from exc

    async def _make(self) -> None:
        if self._is_there:
            return
        config = {
            "name": self.stream,
            "description": "Zephyr: rows that could not become events",
            "subjects": [f"{fmt.DEAD_LETTERS}.>"],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self._replicas,
            "max_bytes": _MAX_BYTES,
        }
        try:
            await self._jetstream.api(f"STREAM.INFO.{self.stream}")
        except JetStreamError as exc:
            if exc.error_code != STREAM_NOT_FOUND:
                raise
            try:
                await self._jetstream.api(f"STREAM.CREATE.{self.stream}", config)
            except JetStreamError as refused:
                raise StreamUnfit(
                    f"the dead-letter stream {self.stream!r} cannot be made: {refused.message}",
                    f"free the subjects {fmt.DEAD_LETTERS}.> or raise the broker's limits",
                ) from refused
        self._is_there = True
