"""Subscribers of the demo's workspace: what a user's program would see, and an account of it.

Each has a client connection of its own and is ready before the first write. What it gets is held
against the list of expected events at once; only counts and a histogram are kept. The slowest of
them is what the replay waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from realtime.client import Client, ReceivedEvent, Start
from realtime.errors import RealtimeError
from zephyr.console import CommandError
from zephyr.demo.expected import Account, Expected
from zephyr.demo.latency import Latencies


class Subscriber:
    """One of them. ``failure`` is why it stopped, empty while it listens."""

    def __init__(self, address: str, workspace_id: UUID, expected: Expected) -> None:
        self.account = Account(expected)
        self.failure = ""
        self._address = address
        self._workspace_id = str(workspace_id)

    async def listen(
        self, on_ready: Callable[[], None], on_batch: Callable[[Sequence[ReceivedEvent]], None]
    ) -> None:
        """Listens until it is cancelled, or told by the server that it cannot go on."""
        try:
            async with (
                Client(self._address) as client,
                client.subscribe(workspaces=[self._workspace_id], start=Start.live()) as subscription,
            ):
                await subscription.ready()
                on_ready()
                async for batch in subscription.batches():
                    for received in batch:
                        self.account.receive(
                            received.kind, received.event.subject, received.verb, _version(received)
                        )
                    on_batch(batch)
                self.failure = "the stream ended"
        except RealtimeError as exc:
            self.failure = exc.message


class Subscribers:
    """All of them, and the latencies of all deliveries together."""

    def __init__(self, address: str, workspace_id: UUID, count: int, expected: Expected) -> None:
        self.latencies = Latencies()
        self.members = [Subscriber(address, workspace_id, expected) for _ in range(count)]
        self._expected = expected
        self._ready = 0
        self._moved = asyncio.Event()

    @property
    def deliveries(self) -> int:
        """How many events came, to all of them together."""
        return self.latencies.count

    @property
    def accounts(self) -> list[Account]:
        return [member.account for member in self.members]

    @property
    def failures(self) -> list[str]:
        """Why subscribers stopped."""
        return [member.failure for member in self.members if member.failure]

    async def run(self) -> None:
        """Runs all of them until it is cancelled; one that fails leaves the others."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._run(member))

    async def wait_ready(self) -> None:
        """Waits until each of them listens.

        Raises:
            CommandError: one of them cannot.
        """
        await self._until(lambda: self._ready == len(self.members) or bool(self.failures))
        if self.failures:
            raise CommandError(
                f"a subscriber cannot listen: {self.failures[0]}", "see that the server runs", 3
            )

    async def wait_for_commits(self, count: int) -> None:
        """Waits until all that still listen got the events of the first ``count`` commits."""
        await self._until(lambda: self.slowest_commits() >= count)

    async def wait_complete(self) -> None:
        """Waits until all that still listen got everything that is expected."""
        await self._until(lambda: all(m.failure or m.account.is_complete() for m in self.members))

    def slowest_commits(self) -> int:
        """How many commits the slowest of those that still listen is past."""
        frontiers = [member.account.frontier for member in self.members if not member.failure]
        return self._expected.commits_before(min(frontiers, default=len(self._expected)))

    async def _run(self, member: Subscriber) -> None:
        await member.listen(self._on_ready, self._on_batch)
        self._move()

    def _on_ready(self) -> None:
        self._ready += 1
        self._move()

    def _on_batch(self, batch: Sequence[ReceivedEvent]) -> None:
        now = time.time_ns() // 1000
        for received in batch:
            self.latencies.record(now - received.event.time)
        self._move()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._moved.wait()


def _version(received: ReceivedEvent) -> int:
    """The version of the row that the event carries; 0 where it carries none."""
    kind = received.event.WhichOneof("data")
    if kind is None or kind == "other":
        return 0
    version: int = getattr(received.event, kind).version
    return version
