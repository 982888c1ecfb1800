"""Messages as NATS' own commands, many as one piece of bytes.

Source: the NATS documentation, "Client Protocol" (HPUB), ADR-4 (headers), ADR-50 (atomic batches).
"""

from __future__ import annotations

from collections.abc import Sequence


class Message:
    """What is to be stored. ``head`` has its headers, ``Name: value`` and CRLF each; there is one at least."""

    __slots__ = ("head", "payload", "subject")

    def __init__(self, subject: str, head: str, payload: bytes) -> None:
        self.subject = subject
        self.head = head
        self.payload = payload


def single_command(message: Message, reply: str) -> bytes:
    """The command of one message, that is acknowledged by itself."""
    return _command(message, "", reply) + message.payload + b"\r\n"


def batch_commands(messages: Sequence[Message], batch: str, reply: str) -> bytes:
    """The commands of an atomic batch: all of the messages, or none. ``batch`` is its id, used once.

    The last message alone has a reply subject: its answer is of the whole.
    """
    parts: list[bytes] = []
    last = len(messages)
    begins = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: "
    for at, message in enumerate(messages, 1):
        if at < last:
            parts.append(_command(message, f"{begins}{at}\r\n", ""))
        else:
            parts.append(_command(message, f"{begins}{at}\r\nNats-Batch-Commit: 1\r\n", reply))
        parts.append(message.payload)
        parts.append(b"\r\n")
    return b"".join(parts)


def _command(message: Message, more: str, reply: str) -> bytes:
    headers = f"NATS/1.0\r\n{message.head}{more}\r\n"
    size = len(headers) if headers.isascii() else len(headers.encode())
    total = size + len(message.payload)
    return f"HPUB {message.subject} {reply} {size} {total}\r\n{headers}".encode()
