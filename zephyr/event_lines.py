"""Lines of events to publish: where they are read from, and what each of them says.

A line is protobuf's JSON form of NewEvent, with its sequence where it has one of its own; else the
line's number is it. An empty line is none. A file is read as it is, a pipe as it comes; no more than one
line and one chunk is held.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
from google.protobuf.json_format import ParseDict, ParseError

from protos.events.v1.publish_pb2 import NewEvent
from realtime.errors import ArgumentInvalid
from realtime.publish.rules import check
from zephyr.console import CommandError

MAX_LINE_BYTES = 32 * 1024 * 1024
"""An event may have 8 MiB, and its text in base64 and escapes several times that."""
_CHUNK_BYTES = 256 * 1024
_SEQUENCE = b'"sequence"'


@dataclass(frozen=True, slots=True)
class Line:
    """``end`` is how many bytes were read with it."""

    number: int
    text: bytes
    end: int


class BadLine(Exception):
    """A line that is no event; the message says why."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.message = message


async def lines_of(file: int) -> AsyncIterator[Line]:
    """The lines of an open file or pipe that are not empty.

    Raises:
        CommandError: a line is longer than any event.
    """
    number, end, rest = 0, 0, b""
    async for chunk in _chunks(file):
        *lines, rest = (rest + chunk).split(b"\n")
        for text in lines:
            number += 1
            end += len(text) + 1
            if text.strip():
                yield Line(number, text, end)
        if len(rest) > MAX_LINE_BYTES:
            raise CommandError(
                f"line {number + 1} is longer than {MAX_LINE_BYTES >> 20} MiB", "one event a line", 2
            )
    if rest.strip():
        yield Line(number + 1, rest, end + len(rest))


async def _chunks(file: int) -> AsyncIterator[bytes]:
    if stat.S_ISREG(os.fstat(file).st_mode):
        while chunk := os.read(file, _CHUNK_BYTES):
            yield chunk
        return
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(file), "rb", 0)
    )
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            yield chunk
    finally:
        transport.close()


def has_sequence(line: Line) -> bool:
    """Whether a line may say a sequence of its own."""
    return _SEQUENCE in line.text


def event_of(line: Line) -> tuple[NewEvent, int]:
    """The event of a line, and its sequence.

    Raises:
        BadLine: it is none.
    """
    try:
        value = orjson.loads(line.text)
    except orjson.JSONDecodeError as exc:
        raise BadLine(line.number, f"it is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadLine(line.number, "it is no JSON object")
    sequence = value.pop("sequence", line.number)
    if isinstance(sequence, str) and sequence.isdecimal():
        sequence = int(sequence)  # protobuf's JSON writes 64 bits as text
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 < sequence < 1 << 64:
        raise BadLine(line.number, f"sequence: {sequence!r} is no number from 1")
    try:
        event = ParseDict(value, NewEvent())
        check(event)
    except ParseError as exc:
        raise BadLine(line.number, str(exc)) from exc
    except ArgumentInvalid as exc:
        told = "; ".join(f"{field}: {description}" for field, description in exc.violations)
        raise BadLine(line.number, told) from exc
    return event, sequence
