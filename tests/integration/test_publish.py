"""Publishing on a real server and broker: what is stored, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from protos.events.v1 import publish_pb2 as pb
from protos.events.v1.event_pb2 import Event
from protos.events.v1.mark_pb2 import ProducerMark
from protos.events.v1.stream_pb2 import Filter
from realtime.cursor import Cursor
from realtime.errors import AlreadyStored, ProducerFenced, SequencePassed, VersionConflict
from tests.fixtures.publish_kit import (
    PublishClient,
    W,
    batched,
    new_event,
    produced,
    publish_client,
    refusal,
)
from tests.fixtures.raw_stream import after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import STREAM, Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer


class Kit:
    """A client, and the stream as the broker has it."""

    def __init__(self, address: str, client: PublishClient, writer: StreamWriter) -> None:
        self.address = address
        self.client = client
        self.writer = writer

    async def state(self) -> dict[str, Any]:
        return dict((await self.writer.api(f"STREAM.INFO.{STREAM}"))["state"])

    async def message(self, sequence: int) -> tuple[str, dict[str, str], bytes]:
        message = await self.writer.connection.jetstream().get_msg(STREAM, sequence)
        return message.subject or "", message.headers or {}, message.data or b""

    async def events(self) -> list[Event]:
        """All that a subscriber is told, from the beginning."""
        last = (await self.state())["last_seq"]
        async with raw_stream(self.address) as stream:
            await stream.open("a", start=earliest())
            await stream.until(lambda: (stream["a"].through or 0) >= last)
            return [item.event for item in stream["a"].events]


@pytest.fixture
async def kit(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[Kit]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(nats_server.url))
        client = await stack.enter_async_context(publish_client(address))
        yield Kit(address, client, writer)


async def test_one_event_as_it_is_stored_and_delivered(kit: Kit) -> None:
    event = new_event("n1", actor="anna", time=1_700_000_000_000_000)
    event.note.id, event.note.title = "n1", "Title"
    event.metadata.correlation_id = "work"
    event.metadata.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    stored = await kit.client.publish(event)
    subject, headers, payload = await kit.message(stored.sequence)
    assert subject == f"zephyr.0.{W}.note.n1.event"
    # Beside them are those of a CloudEvent: test_cloud_events.py.
    assert {name: value for name, value in headers.items() if not name.startswith("ce-")} == {
        "Zephyr-Id": stored.event_id,
        "Zephyr-Verb": "shared",
        "Zephyr-Schema": Event.FromString(payload).data_schema,
        "Zephyr-Actor": "anna",
        "Zephyr-Correlation": "work",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    got = Event.FromString(payload)
    assert (got.id, got.type, got.source) == (stored.event_id, "note.shared", "/publisher/_")
    assert (got.subject, got.workspace_id, got.time) == ("n1", W, 1_700_000_000_000_000)
    assert (got.actor, got.correlation_id, got.note.title) == ("anna", "work", "Title")
    assert got.data_schema.startswith("zephyr.models.v1.Note/")
    assert not got.HasField("commit")
    assert (stored.version, stored.repeated) == (stored.sequence, False)
    # The cursor is exact: what is read after it begins with the very next message.
    await kit.client.publish(new_event("n2"))
    async with raw_stream(kit.address) as stream:
        await stream.open("a", start=after(stored.cursor))
        await stream.until(lambda: stream["a"].events)
        assert [item.event.subject for item in stream["a"].events] == ["n2"]
        await stream.open("all", start=earliest())
        await stream.until(lambda: stream["all"].events)
        assert stream["all"].events[0].cursor == stored.cursor


async def test_a_batch_is_stored_together(kit: Kit) -> None:
    stored = await kit.client.batch([batched(f"n{number}") for number in range(1000)])
    first = stored[0].sequence
    assert [item.sequence for item in stored] == list(range(first, first + 1000))
    assert [Cursor.decode(item.cursor).sequence for item in stored] == list(range(first, first + 1000))
    assert [event.subject for event in await kit.events()] == [f"n{number}" for number in range(1000)]


async def test_a_producer_is_told_again_what_it_stored(kit: Kit) -> None:
    place = pb.ProducerPlace(producer_id="p", sequence=7)
    stored = await kit.client.publish(new_event("n"), producer=place)
    again = await kit.client.publish(new_event("n"), producer=place)
    assert again.repeated
    assert not stored.repeated
    assert (again.sequence, again.cursor, again.event_id) == (stored.sequence, stored.cursor, "p.7")
    assert len(await kit.events()) == 1
    subject, headers, payload = await kit.message(stored.sequence + 1)
    assert subject == "zephyr._mark.0.producer.p"
    assert headers["Nats-Expected-Last-Subject-Sequence"] == "0"
    mark = ProducerMark.FromString(payload)
    assert (mark.session, mark.reached, list(mark.sequences)) == (1, 7, [7])
    assert mark.epoch == kit.writer.epoch
    error = await refusal(
        kit.client.publish(new_event(), producer=pb.ProducerPlace(producer_id="p", sequence=6))
    )
    assert isinstance(error, AlreadyStored)


async def test_a_stream_of_a_producer(kit: Kit) -> None:
    stream = kit.client.stream()
    opened = await stream.open("p")
    assert (opened.session, opened.reached) == (1, 0)
    for begin in range(1, 3001, 500):
        await stream.put(produced(number) for number in range(begin, begin + 500))
    results = await stream.settle(3000)
    assert stream.sequences == list(range(1, 3001))
    assert all(result.HasField("stored") for result in results)
    events = await kit.events()
    assert [event.id for event in events] == [f"p.{number}" for number in range(1, 3001)]
    places = [result.stored.sequence for result in results]
    assert places == sorted(set(places))
    for result in (results[0], results[1234], results[-1]):
        cursor = Cursor.decode(result.stored.cursor)
        _, _, payload = await kit.message(cursor.sequence)
        assert Event.FromString(payload).id == result.stored.event_id
    assert await stream.end() == results
    assert stream.closed is None


async def test_another_session_goes_on_and_fences(kit: Kit) -> None:
    first, second = kit.client.stream(), kit.client.stream()
    await first.open("p")
    await first.put(produced(number) for number in range(1, 1001))
    await first.put(produced(number) for number in range(1001, 1501))
    await first.settle(1500)
    opened = await second.open("p")
    assert (opened.session, opened.reached) == (2, 1500)
    await first.until(lambda: first.closed)
    assert isinstance(first.closed, ProducerFenced)
    await second.put(produced(number) for number in (1, 501, 502, 1000, 1500, 1501))
    results = await second.settle(6)
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds == ["already_stored", "stored", "stored", "stored", "stored", "stored"]
    assert [result.stored.repeated for result in results[1:]] == [True, True, True, True, False]
    # Given again just as it was the first time.
    for result in results[1:5]:
        was = first.results[result.sequence - 1].stored
        assert (was.sequence, was.cursor, was.event_id) == (
            result.stored.sequence,
            result.stored.cursor,
            result.stored.event_id,
        )
    assert len(await kit.events()) == 1501


async def test_what_was_passed_over_cannot_be_stored_later(kit: Kit) -> None:
    stream = kit.client.stream()
    await stream.open("p")
    await stream.put([produced(1), produced(3), produced(3), produced(2), produced(4)])
    results = await stream.settle(5)
    assert [result.WhichOneof("result") for result in results] == [
        "stored",
        "stored",
        "stored",
        "error",
        "stored",
    ]
    assert results[2].stored.repeated
    assert isinstance(stream.errors()[0], SequencePassed)
    assert [event.id for event in await kit.events()] == ["p.1", "p.3", "p.4"]


async def test_a_stream_of_nobody(kit: Kit) -> None:
    stream = kit.client.stream()
    opened = await stream.open()
    assert (opened.session, opened.reached) == (0, 0)
    await stream.put(produced(number) for number in range(1, 11))
    await stream.put([produced(5)])
    await stream.settle(11)
    assert stream.sequences == [*range(1, 11), 5]
    assert len(await kit.events()) == 11


async def test_versions(kit: Kit) -> None:
    first = await kit.client.publish(new_event("n"), expectation=pb.Expectation(version=0))
    conflict = await refusal(kit.client.publish(new_event("n"), expectation=pb.Expectation(version=0)))
    assert isinstance(conflict, VersionConflict)
    assert list(conflict.conflicts) == [("event", first.version, first.cursor)]
    assert conflict.message == f"event: the entity's domain events are at version {first.version}"
    by_cursor = pb.Expectation(last_cursor=first.cursor)
    second = await kit.client.publish(new_event("n"), expectation=by_cursor)
    assert second.version > first.version
    assert isinstance(
        await refusal(kit.client.publish(new_event("n"), expectation=by_cursor)), VersionConflict
    )


async def test_a_batch_reports_all_conflicts_and_stores_nothing(kit: Kit) -> None:
    one = await kit.client.publish(new_event("one"))
    two = await kit.client.publish(new_event("two"))
    before = (await kit.state())["messages"]
    for more in ({}, {"producer": pb.ProducerPlace(producer_id="p", sequence=1)}, {"request_id": "r"}):
        batch = [batched("one", 0), batched("free", 0), batched("two", 1), batched("two")]
        error = await refusal(kit.client.batch(batch, **more))
        assert isinstance(error, VersionConflict)
        assert list(error.conflicts) == [
            ("events[0]", one.version, one.cursor),
            ("events[2]", two.version, two.cursor),
        ]
    assert (await kit.state())["messages"] == before


async def test_conflicts_on_a_stream_leave_the_others(kit: Kit) -> None:
    one = await kit.client.publish(new_event("one"))
    for producer in ("p", ""):
        stream = kit.client.stream()
        await stream.open(producer)
        await stream.put(
            [
                produced(1, new_event(f"{producer}a"), 0),
                produced(2, new_event("one"), 0),
                produced(3),
                produced(4, new_event(f"{producer}a"), 0),
                produced(5, new_event(f"{producer}b"), 0),
            ]
        )
        results = await stream.settle(5)
        kinds = [result.WhichOneof("result") for result in results]
        assert kinds == ["stored", "error", "stored", "error", "stored"]
        conflicts = [error.conflicts for error in stream.errors() if isinstance(error, VersionConflict)]
        assert conflicts[0] == (("event", one.version, one.cursor),)
        assert conflicts[1] == (("event", results[0].stored.version, results[0].stored.cursor),)
        places = [result.stored.sequence for result in results if result.HasField("stored")]
        assert places == sorted(places)


async def test_request_ids(kit: Kit) -> None:
    stored = await kit.client.publish(new_event("n"), request_id="r ä\r\n1")
    again = await kit.client.publish(new_event("n"), request_id="r ä\r\n1")
    assert again.repeated
    assert (again.sequence, again.cursor, again.event_id) == (stored.sequence, stored.cursor, stored.event_id)
    expecting = pb.Expectation(version=stored.version)
    second = await kit.client.publish(new_event("n"), request_id="2", expectation=expecting)
    repeated = await kit.client.publish(new_event("n"), request_id="2", expectation=expecting)
    assert (repeated.repeated, repeated.sequence) == (True, second.sequence)
    batch = [batched("x", 0), batched("y"), batched("z")]
    whole = await kit.client.batch(batch, request_id="b")
    assert [item.sequence for item in await kit.client.batch(batch, request_id="b")] == [
        item.sequence for item in whole
    ]
    assert all(item.repeated for item in await kit.client.batch(batch, request_id="b"))
    assert len(await kit.events()) == 5


async def test_large_events(kit: Kit) -> None:
    event = new_event("large")
    event.note.body = "x" * (8 * 2**20 - 4096)
    stored = await kit.client.publish(event, request_id="large")
    _, _, payload = await kit.message(stored.sequence)
    assert Event.FromString(payload).note.body == event.note.body
    stream = kit.client.stream()
    await stream.open("p")
    await stream.put([produced(1, event), produced(2)])
    for number in range(3, 8):
        await stream.put([produced(number, event)])
    results = await stream.settle(7)
    assert all(result.HasField("stored") for result in results)
    event.note.body += "x" * 8192
    assert (await refusal(kit.client.publish(event))).reason == "EVENT_TOO_LARGE"


async def test_a_published_event_within_a_transaction(kit: Kit) -> None:
    """It neither ends the transaction nor belongs to it, live and read back."""
    async with raw_stream(kit.address) as stream:
        await stream.open("live")
        await kit.writer.commit(Change(), Change(), open_end=True)
        stored = await kit.client.publish(new_event("between"))
        assert stored.sequence == 3
        assert Cursor.decode(stored.cursor).sequence == 3
        kit.writer._last += 1
        await kit.writer.finish(2, Change())
        await stream.until(lambda: len(stream["live"].events) == 4)
        assert stream["live"].sequences == [1, 2, 3, 4]
        assert "events" not in stream["live"].said[: stream["live"].said.index("events")]
        await stream.open("past", start=earliest())
        await stream.until(lambda: len(stream["past"].events) == 4)
        assert stream["past"].ids == stream["live"].ids
        # From within it as well.
        await stream.open("within", start=after(stored.cursor))
        await stream.until(lambda: stream["within"].events)
        assert stream["within"].sequences == [4]


async def test_a_domain_event_of_a_membership_makes_nobody_a_member(kit: Kit) -> None:
    user = new_id()
    async with raw_stream(kit.address) as stream:
        await stream.open("w", wanted=_of_workspace())
        event = new_event(new_id(), "created-by-guest", kind="membership")
        event.membership.user_id = user
        await kit.client.publish(event)
        # As a plain NATS client could write it, with a row's verb.
        payload = Event(membership=event.membership).SerializeToString()
        subject = f"zephyr.0.{W}.membership.{new_id()}.event"
        for verb in ("created", "truncated"):
            await kit.writer.connection.publish(subject, payload, headers={"Zephyr-Verb": verb})
        await kit.writer.connection.publish(
            "zephyr.0._.note._.event", Event().SerializeToString(), headers={"Zephyr-Verb": "truncated"}
        )
        await kit.writer.connection.flush()
        kit.writer._last += 4
        await kit.writer.commit(Change(kind="user", entity=user, verb="updated"))
        last = await kit.client.publish(new_event("last"))
        await stream.until(lambda: stream["w"].sequences[-1:] == [last.sequence])
        assert [item.event.subject for item in stream["w"].events][-1] == "last"
        assert user not in [item.event.subject for item in stream["w"].events]
        assert (
            stream["w"].counts[1] == 1
        )  # the user's event: what only the bridge may say is no event of others


def _of_workspace() -> Filter:
    return Filter(workspace_ids=[W])
