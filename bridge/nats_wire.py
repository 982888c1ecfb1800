"""NATS' own protocol, where nats-py is too slow: many publishes as one write.

nats-py validates, encodes and flushes each message by itself, which costs the bridge more
than all the rest of a row. What is known to be well-formed is put into commands here, and
handed to the connection in one piece; authentication, TLS, pings and errors stay nats-py's.
``docs/decisions/008-commands-of-our-own.md`` says what of nats-py is relied on.

Source: the NATS documentation, "Client Protocol" (HPUB), and ADR-4 for the headers.
"""

from __future__ import annotations

from typing import Final

import nats.errors
from nats.aio.client import Client as NatsClient

from bridge.outgoing import Outgoing

# Operations of a fast-ingest run.
_START: Final = 0
_APPEND: Final = 1
_COMMIT: Final = 2


def run_commands(
    messages: list[Outgoing], at: int, head: str, reply: str, max_bytes: int
) -> tuple[bytes, int]:
    """The commands of a run from its message ``at`` on, so many that they are ``max_bytes`` or a little more;
    and the place of the first that is not among them. ``head`` are headers that each of them has beside
    its own, ``reply`` is the reply subject up to the message's number.

    Subjects, reply and headers must be well-formed, and there must be headers.
    """
    parts: list[bytes] = []
    size = 0
    last = len(messages)
    while at < last and size < max_bytes:
        message = messages[at]
        operation = _START if at == 0 else _APPEND
        at += 1
        if at == last:
            operation = _COMMIT
        payload = message.payload
        headers = f"NATS/1.0\r\n{message.head}{head}\r\n"
        # Headers are ASCII: names, tokens and numbers. Their characters are their bytes.
        length = len(headers)
        command = f"HPUB {message.subject} {reply}{at}.{operation}.$FI {length} {length + len(payload)}\r\n{headers}"
        parts.append(command.encode("ascii"))
        parts.append(payload)
        parts.append(b"\r\n")
        size += len(command) + len(payload)
    return b"".join(parts), at


async def send_raw(connection: NatsClient, commands: bytes) -> None:
    """Writes commands to the connection, and waits while its buffer is full.

    They pass by nats-py's own queue: flush the connection first if something is in it that must
    come before. (Its queue is no way for us: waiting for it swallows a cancellation.)

    Raises:
        nats.errors.Error: the connection is not open.
        OSError: it broke.
    """
    if not connection.is_connected:
        raise nats.errors.ConnectionClosedError
    transport = connection._transport
    assert transport is not None, "a connection that is open has a transport"
    transport.write(commands)
    await transport.drain()  # type: ignore[no-untyped-call]
