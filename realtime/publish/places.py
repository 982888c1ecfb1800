"""Cursors of messages that were stored: from what this server reads, or from the stream when that is late."""

from __future__ import annotations

import asyncio

from realtime.cursor import encode_cursor
from realtime.errors import SourceUnavailable
from realtime.jetstream import StreamReader
from realtime.publish.arrivals import Arrivals

_WAIT_S = 2.0


class Places:
    """Of one stream, as its one reader sees it."""

    def __init__(self, arrivals: Arrivals, reader: StreamReader) -> None:
        self._arrivals = arrivals
        self._reader = reader

    @property
    def epoch(self) -> str:
        """The epoch whose cursors are given."""
        return self._arrivals.epoch

    async def ready(self) -> None:
        """Waits until the stream's epoch is known."""
        await self._arrivals.begun()

    async def cursors(self, sequences: list[int]) -> list[bytes]:
        """The cursors after messages, that the broker has acknowledged. In growing order, best.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        arrivals = self._arrivals
        last = max(sequences, default=0)
        if arrivals.head < last:
            try:
                async with asyncio.timeout(_WAIT_S):
                    await arrivals.reached(last)
            except TimeoutError:
                pass  # the source is late: the stream has them
        epoch = arrivals.epoch
        timestamps = [arrivals.timestamp_ns(sequence) for sequence in sequences]
        if not all(timestamps):
            missing = [each for each, found in zip(sequences, timestamps, strict=True) if not found]
            read = await self._read(epoch, missing)
            timestamps = [
                found or read.get(each, 0) for each, found in zip(sequences, timestamps, strict=True)
            ]
        return [
            encode_cursor(epoch, sequence, timestamp)
            for sequence, timestamp in zip(sequences, timestamps, strict=True)
        ]

    async def _read(self, epoch: str, missing: list[int]) -> dict[int, int]:
        """By pages, as they mostly stand together; what retention took has no time."""
        found: dict[int, int] = {}
        left = sorted(set(missing))
        while left:
            wanted = left[0]
            entries = await self._reader.page(epoch, wanted - 1, messages=min(1024, left[-1] - wanted + 1))
            for entry in entries:
                found[entry.sequence] = entry.timestamp_ns
            if wanted not in found:
                # A replica may lag; the leader knows.
                found[wanted] = await self._reader.timestamp_ns(wanted) or 0
            left = [each for each in left if each not in found]
        return found

    async def cursor(self, sequence: int) -> bytes:
        """The cursor after one message.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        if not self.epoch:
            raise SourceUnavailable("the stream was not read yet", "try again")
        return (await self.cursors([sequence]))[0]
