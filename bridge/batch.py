"""Atomic batches: up to a thousand messages that are stored together, or not at all.

Each message names its batch and its number in it; the last one commits, and its answer is the batch's.
A batch of which a message is missing, or for which the broker has no room beside others that are open,
is refused whole, so that it can be tried again with nothing read back.

Source: NATS ADR-50, "JetStream Batch Publishing" (atomic, nats-server 2.12).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import nats.errors
from nats.aio.client import Client as NatsClient

from bridge.errors import Unreachable
from bridge.outgoing import Outgoing, headers_of

BATCH_MESSAGES = 1000
"""As many messages a batch has at most."""
INCOMPLETE = 10176
TOO_MANY_OPEN = 10210
"""Error codes: a message of the batch is missing, since it was lost or refused; others have too many batches open."""


async def send_batch(
    connection: NatsClient, messages: Sequence[Outgoing], head: str, timeout_s: float
) -> bytes:
    """Sends a batch once, each message with the headers ``head`` beside its own; gives the broker's answer.

    Raises:
        Unreachable: no answer: all of it may be stored, or nothing.
    """
    assert len(messages) <= BATCH_MESSAGES
    batch = secrets.token_hex(8)
    try:
        async with asyncio.timeout(timeout_s):
            for number, message in enumerate(messages[:-1], 1):
                headers = _headers(message, head, batch, number)
                await connection.publish(message.subject, message.payload, headers=headers)
            last = messages[-1]
            headers = _headers(last, head, batch, len(messages)) | {"Nats-Batch-Commit": "1"}
            answer = await connection.request(last.subject, last.payload, timeout=timeout_s, headers=headers)
    except (TimeoutError, nats.errors.TimeoutError) as exc:
        raise Unreachable(f"NATS did not acknowledge a batch within {timeout_s:g} s") from exc
    except (nats.errors.Error, OSError) as exc:
        raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc
    return bytes(answer.data)


def _headers(message: Outgoing, head: str, batch: str, number: int) -> dict[str, str]:
    return headers_of(message.head + head) | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
