"""Writes events into the stream in the bridge's place, so that nothing but the server is measured.

Run as ``python -m bench.writer SPEC``; started by ``program.py``. A number on standard input
says how many events may be written in all from now on: it writes up to there at once, or at
``per_second`` when the spec has one (each event due at its own time, which it bears). It says
{"stored": sequence} when all of ``events`` are stored and the broker has acknowledged each
batch at the sequence that it must have. With ``prepared`` it makes all events first and then says
{"prepared": events}, so that writing takes little from what is measured.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event

EVENT_BYTES = 200
BATCH = 1000
_LINE = b"\r\n"
_INBOX = "_INBOX.zephyr-bench"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is written: ``events`` notes in ``workspace``, into a stream that holds ``stored`` messages."""

    host: str
    port: int
    epoch: str
    workspace: str
    stored: int
    events: int
    per_second: float = 0.0
    prepared: bool = False


Message = tuple[bytes, bytes]
"""What stands before the subject to answer to, and after it."""


def message(spec: Spec, number: int, time_us: int) -> Message:
    """An event of ``EVENT_BYTES`` as the broker is told it: a transaction of one."""
    lsn = 0x1000_0000 + number * 0x10
    place = fmt.CommitPlace(lsn, 0, 1)
    entity = str(uuid.UUID(int=0x40008000000000000000 + number))
    event = Event(
        id=fmt.event_id("1", spec.epoch, lsn, 0),
        type="note.created",
        subject=entity,
        time=time_us,
        workspace_id=spec.workspace,
    )
    event.commit.lsn, event.commit.count = lsn, 1
    event.note.id = entity
    payload = event.SerializeToString()
    # Tag and length of the title make two of the bytes that are missing.
    event.note.title = "x" * max(0, EVENT_BYTES - len(payload) - 2)
    payload = event.SerializeToString()
    headers = (
        f"NATS/1.0\r\n{fmt.ID}: {event.id}\r\n{fmt.VERB}: created\r\n{fmt.COMMIT}: {place}\r\n\r\n".encode()
    )
    subject = fmt.Subject(spec.workspace, "note", entity)
    sizes = f"{len(headers)} {len(headers) + len(payload)}\r\n".encode()
    return f"HPUB {subject} ".encode(), sizes + headers + payload + _LINE


class Connection:
    """A bare connection to the broker, of which every batch is acknowledged."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self._lines = self.socket.makefile("rb")
        self._lines.readline()  # INFO
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "lang": "zephyr-bench",
            "version": "1",
        }
        self.socket.sendall(f"CONNECT {json.dumps(options)}\r\nSUB {_INBOX} 1\r\n".encode())

    def store(self, messages: list[Message], last: int) -> None:
        """Stores a batch, the last of it at the sequence ``last``."""
        parts = [part for each in messages for part in each]
        parts.insert(-1, f"{_INBOX} ".encode())
        self.socket.sendall(b"".join(parts))
        while True:
            line = self._lines.readline()
            if line.startswith(b"PING"):
                self.socket.sendall(b"PONG\r\n")
            elif line.startswith(b"MSG"):
                answer: dict[str, Any] = json.loads(self._lines.read(int(line.split()[-1]) + 2))
                if answer.get("seq") != last:
                    raise SystemExit(f"error: the broker answered {answer}, and not the sequence {last}")
                return
            elif not line or line.startswith(b"-ERR"):
                raise SystemExit(f"error: the broker said {line!r}")


def write(spec: Spec, allowances: Iterator[int]) -> None:
    """Writes as far as it is allowed to, until all are stored."""
    connection = Connection(spec.host, spec.port)
    made: list[Message] = []
    if spec.prepared:
        made = [message(spec, spec.stored + each, int(time.time() * 1e6)) for each in range(spec.events)]
        say("prepared", spec.events)
    written, start = 0, 0.0
    for allowed in allowances:
        start = start or time.time()
        while written < (until := min(allowed, spec.events)):
            end = min(until, written + BATCH)
            if spec.per_second:
                # What is due by now, or else the next one at its time.
                end = min(end, max(written + 1, 1 + int((time.time() - start) * spec.per_second)))
                select.select([], [], [], max(0.0, start + written / spec.per_second - time.time()))
            connection.store(made[written:end] or _made_now(spec, start, written, end), spec.stored + end)
            written = end
        if written == spec.events:
            say("stored", spec.stored + written)
            return


def say(name: str, value: int) -> None:
    """Tells who started us."""
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


def _made_now(spec: Spec, start: float, written: int, end: int) -> list[Message]:
    numbers = range(written, end)
    if spec.per_second:
        times = [start + each / spec.per_second for each in numbers]
    else:
        times = [time.time()] * len(numbers)
    return [message(spec, spec.stored + each, int(at * 1e6)) for each, at in zip(numbers, times, strict=True)]


if __name__ == "__main__":
    write(Spec(**json.loads(sys.argv[1])), (int(line) for line in sys.stdin))
    sys.stdin.read()
