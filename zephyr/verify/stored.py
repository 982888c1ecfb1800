"""What the stream holds, read with plain nats-py by an ordered pull, a bounded batch at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from protos.events.v1.event_pb2 import Event
from protos.events.v1.mark_pb2 import PositionMark
from zephyr.verify.truth import DIGESTED, digest

STREAM = "ZEPHYR"
_BATCH = 500
_FETCH_S = 5.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One event of the stream."""

    subject: str
    verb: str
    lsn: int
    index: int
    count: int
    payload: bytes
    actor: str = ""

    @property
    def kind(self) -> str:
        return self.subject.split(".")[3]

    @property
    def entity(self) -> str:
        return self.subject.split(".")[4]

    def event(self) -> Event:
        """The payload, decoded."""
        return Event.FromString(self.payload)

    def version_and_digest(self) -> tuple[int, int]:
        """Of the row in it; zeros when it carries none."""
        event = self.event()
        if event.WhichOneof("data") is None or self.verb == "rejected":
            return 0, 0
        data = getattr(event, self.kind)
        return data.version, digest(*(str(getattr(data, name, "")) for name in DIGESTED))


async def read(client: Client) -> AsyncIterator[Stored]:
    """Every event of the bridge in the stream, in order, up to its end as it is now."""
    jetstream = client.jetstream(timeout=_FETCH_S)
    info = await jetstream.stream_info(STREAM)
    if info.state.messages == 0:
        return
    last = info.state.last_seq
    subscription = await jetstream.pull_subscribe(
        "",
        stream=STREAM,
        config=ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.ALL,
            filter_subject="zephyr.>",
            inactive_threshold=60,
            mem_storage=True,
        ),
    )
    before = delivered = 0
    while before < last:
        for message in await subscription.fetch(_BATCH, timeout=_FETCH_S):
            sequence = message.metadata.sequence
            delivered += 1
            if sequence.consumer != delivered:
                raise nats.errors.Error("the broker left a message out")
            before = sequence.stream
            headers = message.headers or {}
            # Events that others published have no place in a transaction.
            if message.subject.startswith("zephyr.0.") and (
                message.subject.endswith(".row") or "Zephyr-Commit" in headers
            ):
                place = headers["Zephyr-Commit"].split("/")
                yield Stored(
                    message.subject,
                    headers["Zephyr-Verb"],
                    int(place[0], 16),
                    int(place[1]),
                    int(place[2]) if len(place) == 3 else 0,
                    message.data,
                    headers.get("Zephyr-Actor", ""),
                )
    await subscription.unsubscribe()


async def marked_lsn(client: Client) -> int:
    """How far the last position mark says that the WAL was read; 0 without one."""
    try:
        message = await client.jetstream(timeout=_FETCH_S).get_last_msg(STREAM, "zephyr._mark.0.position")
    except (nats.errors.Error, nats.js.errors.Error):
        return 0
    return PositionMark.FromString(message.data or b"").wal_lsn


async def last_sequence(client: Client) -> int:
    """The stream's last sequence, asked of the broker itself; 0 while it does not answer."""
    try:
        return (await client.jetstream(timeout=_FETCH_S).stream_info(STREAM)).state.last_seq
    except (nats.errors.Error, nats.js.errors.Error):
        return 0
