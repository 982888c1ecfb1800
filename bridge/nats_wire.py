"""NATS' own protocol, where nats-py is too slow: many publishes as one write.

nats-py validates, encodes and flushes each message by itself, which costs the bridge more
than all the rest of a row. What is known to be well-formed is put into commands here, and
handed to the connection in one piece; authentication, TLS, pings and errors stay nats-py's.
``docs/decisions/008-commands-of-our-own.md`` says what of nats-py is relied on.

Source: the NATS documentation, "Client Protocol" (HPUB), and ADR-4 for the headers.
"""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client as NatsClient

from bridge.jetstream import Outbound


def publish_command(message: Outbound, reply: str) -> bytes:
    """The HPUB command of a message. Subject, reply and headers must be well-formed, headers not empty."""
    subject, payload, lines = message
    head = f"NATS/1.0\r\n{lines}\r\n"
    # Headers are ASCII: names, tokens and numbers. Their characters are their bytes.
    size = len(head)
    command = f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n{head}".encode("ascii")
    return b"".join((command, payload, b"\r\n"))


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
