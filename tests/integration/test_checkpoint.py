"""Where the stream ends, read from a real broker: exact, and not by reading all that is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.change import Position
from bridge.ingest import FastIngest
from bridge.jetstream import StoredMessage, connect_nats
from bridge.outgoing import Outgoing, head_of
from bridge.postgres import Source
from bridge.publish import Publisher
from bridge.settings import BridgeSettings
from bridge.stream import create_stream, new_epoch
from protos.events.v1 import stream_format as fmt

READ = head_of({fmt.VERB: fmt.READ})


class Counting(FastIngest):
    """Counts the requests for stored messages."""

    asked = 0

    async def get(self, query: dict[str, Any]) -> StoredMessage | None:
        self.asked += 1
        return await super().get(query)


@asynccontextmanager
async def term(url: str) -> AsyncIterator[tuple[Counting, Publisher]]:
    connection = await connect_nats(url, 2)
    try:
        jetstream = Counting(connection, "ZEPHYR", 2)
        await jetstream.open()
        state = await create_stream(jetstream, BridgeSettings(), new_epoch())
        jetstream.allows_runs = state.allows_runs
        publisher = Publisher(jetstream, state, Source("7", 1, 0x1000, "zephyr"))
        await publisher.write_first_position()
        await publisher.read_mark()
        await publisher.begin_term()
        yield jetstream, publisher
    finally:
        await connection.close()


def row(number: int, head: str = "") -> Outgoing:
    return Outgoing(f"zephyr.0.w{number % 7}.note.n{number}.row", head, b"")


def change(number: int, lsn: int, index: int = 0, count: int = 0) -> Outgoing:
    return row(number, head_of({fmt.COMMIT: str(fmt.CommitPlace(lsn, index, count))}))


async def test_the_last_change_is_found_whatever_stands_behind_it(nats_url: str) -> None:
    async with term(nats_url) as (jetstream, publisher):
        await publisher.mark(Position(0, 0), 0x100, 0)
        await publisher.publish([change(number, 0x200, number) for number in range(1000)])
        jetstream.asked = 0
        tail = await publisher.read_tail()
        assert tail.position == Position(0x200, 999, False)
        assert jetstream.asked == 2

        # A backfill's rows and its mark, a mark of the schema, an event of somebody else.
        await publisher.publish([change(1, 0x200, 1000, 1001), row(2, READ), row(3, READ)])
        await publisher.publish([Outgoing(fmt.BACKFILL_SUBJECT, "", b""), row(4, READ)])
        await publisher.publish([Outgoing(fmt.SCHEMA_SUBJECT, "", b"")])
        await jetstream.publish("zephyr.0.w.note.n.event", b"", {})
        assert (await publisher.read_tail()).position == Position(0x200, 1000, True)

        # A message that was taken out leaves a gap, and what the mark says stands where nothing follows it.
        gap = await jetstream.last("zephyr.0.w3.note.n3.row")
        assert gap is not None
        await jetstream.api("STREAM.MSG.DELETE.ZEPHYR", {"seq": gap.sequence})
        assert (await publisher.read_tail()).position == Position(0x200, 1000, True)
        await publisher.mark(Position(0x200, 1000), 0x300, 0)
        await publisher.publish([row(5, READ)])
        assert (await publisher.read_tail()).position == Position(0x200, 1000, True)


async def test_the_rows_of_a_copy_are_not_read(nats_url: str) -> None:
    async with term(nats_url) as (jetstream, publisher):
        await publisher.publish([row(number, READ) for number in range(1000)])
        jetstream.asked = 0
        assert (await publisher.read_tail()).position is None
        assert jetstream.asked == 1


async def test_the_changes_of_an_older_epoch_have_no_part_in_it(nats_url: str) -> None:
    async with term(nats_url) as (_, publisher):
        await publisher.mark(Position(0, 0), 0x100, 0)
        await publisher.publish([change(1, 0x200, 0, 1)])
        await publisher.begin_epoch()
        await publisher.mark(Position(0, 0), 0x50, 0)
        await publisher.publish([row(1, READ)])
        assert (await publisher.read_tail()).position is None
