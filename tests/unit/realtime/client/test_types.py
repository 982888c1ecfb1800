"""What the type checker makes of ``subscribe``: events alone, or signals beside them. mypy runs this file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from realtime.client import (
    Batch,
    BroadcastEvent,
    BroadcastsDropped,
    BroadcastSignalSubscription,
    BroadcastSubscription,
    Client,
    ReceivedEvent,
    Signal,
    SignalSubscription,
    Subscription,
    earliest,
    snapshot,
)


async def test_what_an_iteration_gives() -> None:
    async with Client("127.0.0.1:9") as client:
        plain = client.subscribe(kinds=["note"], start=earliest())
        assert_type(plain, Subscription)
        assert_type(aiter(plain), AsyncIterator[ReceivedEvent])
        assert_type(plain.batches(), AsyncIterator[Batch])
        folding = client.subscribe(start=snapshot())
        assert_type(folding, SignalSubscription)
        assert_type(aiter(folding), AsyncIterator[ReceivedEvent | Signal])
        assert_type(folding.batches(), AsyncIterator[Batch | Signal])
        assert_type(client.subscribe(signals=True), SignalSubscription)
        assert_type(client.subscribe(on_gap="continue"), SignalSubscription)
        listening = client.subscribe(broadcasts=True)
        assert_type(listening, BroadcastSubscription)
        assert_type(aiter(listening), AsyncIterator[ReceivedEvent | BroadcastEvent | BroadcastsDropped])
        assert_type(listening.batches(), AsyncIterator[Batch | BroadcastEvent | BroadcastsDropped])
        assert_type(client.subscribe(broadcasts=True, signals=True), BroadcastSignalSubscription)
        assert_type(client.subscribe(broadcasts=True, start=snapshot()), BroadcastSignalSubscription)
