"""Atomic batches on a real broker: all of it is stored, or nothing."""

from __future__ import annotations

import asyncio

import nats
import pytest

from bridge.jetstream import FENCED, JetStreamError
from bridge.outgoing import Outgoing, head_of
from protos.events.v1 import stream_format as fmt
from tests.fixtures.eventually import eventually
from tests.integration.test_ingest import opened, owner, run_of, stored

MOST_OPEN = 50
"""As many batches of one stream the broker keeps open."""


@pytest.mark.parametrize("count", [1, 2, 999])
async def test_a_batch_is_stored_in_order_with_its_mark(nats_url: str, count: int) -> None:
    async with opened(nats_url) as jetstream:
        fence = await owner(jetstream, 0)
        messages = run_of(count, {})
        mark = Outgoing(fmt.POSITION_SUBJECT, "", b"mark")
        assert await jetstream.publish_batch([*messages, mark], head_of(fence)) == 2 + count
        assert await stored(jetstream) == [message.payload for message in messages]
        last = await jetstream.last(fmt.POSITION_SUBJECT)
        assert last is not None
        assert (last.sequence, last.payload) == (2 + count, b"mark")


async def test_of_a_former_owner_nothing_is_stored(nats_url: str) -> None:
    async with opened(nats_url) as jetstream:
        former = await owner(jetstream, 0)
        await owner(jetstream, 1)
        with pytest.raises(JetStreamError) as refused:
            await jetstream.publish_batch(run_of(5, {}), head_of(former))
        assert refused.value.error_code == FENCED
        assert await stored(jetstream) == []


async def test_where_others_have_all_batches_open_it_waits(nats_url: str) -> None:
    async with opened(nats_url) as jetstream:
        fence = await owner(jetstream, 0)
        other = await nats.connect(nats_url)
        try:
            for number in range(MOST_OPEN):
                headers = {"Nats-Batch-Id": f"other-{number}", "Nats-Batch-Sequence": "1"}
                answer = await other.request("zephyr.0.w.note.n.event", b"", headers=headers, timeout=2)
                assert not answer.data, answer.data
            batch = asyncio.ensure_future(jetstream.publish_batch(run_of(3, {}), head_of(fence)))
            done, _ = await asyncio.wait((batch,), timeout=0.3)
            assert not done
            assert await stored(jetstream) == []
            # One of them ends, and there is room.
            ends = {"Nats-Batch-Id": "other-7", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
            await other.request("zephyr.0.w.note.n.event", b"", headers=ends, timeout=2)
            assert await batch == 6
        finally:
            await other.close()

        async def all_stored() -> bool:
            return len(await stored(jetstream)) == 5

        await eventually(all_stored)
