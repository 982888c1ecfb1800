"""The projector on a real Valkey that is killed under it."""

from __future__ import annotations

import asyncio
import secrets
import uuid

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from realtime.cache import Cached, RedisCache
from realtime.entry import make_entry
from realtime.projector import Backoff, Projector
from tests.fixtures.eventually import eventually
from tests.fixtures.read_kit import EPOCH, at
from zephyr.stack.valkey import ValkeyServer


async def test_the_projector_outlives_its_store(own_valkey: ValkeyServer) -> None:
    """Valkey is killed and started again, empty: the batch waits, then the cache is built anew."""
    cache = RedisCache(own_valkey.url, f"test-{secrets.token_hex(4)}:", read_timeout_s=1)
    projector = Projector(cache, Backoff(first_s=0.01, most_s=0.05))
    note_id = str(uuid.uuid4())
    payload = Event(subject=note_id, note=Note(id=note_id, title="t")).SerializeToString()
    subject = str(fmt.Subject(str(uuid.uuid4()), "note", note_id))
    entry = make_entry(EPOCH, subject, {fmt.VERB: fmt.CREATED}, payload, 3, 30)
    try:
        assert await projector.start() is None
        assert await projector.apply(EPOCH, [entry], at(4))
        await own_valkey.kill()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(projector.apply(EPOCH, [], at(5)))
            await eventually(lambda: projector.is_down)
            assert not waiting.done()
            await own_valkey.start()
        assert not waiting.result()
        assert await projector.start() is None
        assert await projector.apply(EPOCH, [entry], at(5))
        assert await cache.get("note", note_id) == Cached(
            Note(id=note_id, title="t").SerializeToString(), at(3)
        )
        assert await cache.watermark() == at(5)
    finally:
        await cache.close()
