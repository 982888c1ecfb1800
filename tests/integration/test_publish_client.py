"""The client's publishing on a real server and broker: what is stored, what is told, and who may go on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from protos.models.v1.note_pb2 import Note
from realtime.client import Client, Draft, Publisher, ReceivedEvent, draft, earliest
from realtime.client.published import ALREADY_STORED
from realtime.errors import ArgumentInvalid, OutcomeUnknown, ProducerFenced, VersionConflict
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import StreamWriter
from tests.fixtures.tcp_proxy import tcp_proxy
from zephyr.stack.nats import NatsServer

pytestmark = pytest.mark.timeout(60)
W = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def target(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[str]:
    async with serving(nats_server.url) as address:
        yield address


def shared(entity: str, expect: int | bytes | None = None) -> Draft:
    return draft(kind="note", entity=entity, verb="shared", workspace=W, expect=expect)


async def store(publisher: Publisher, entity: str) -> None:
    await publisher.publish(shared(entity))
    await publisher.flush()


async def stored(client: Client, count: int) -> list[ReceivedEvent]:
    """The first events of the stream."""
    result: list[ReceivedEvent] = []
    async with client.subscribe(start=earliest()) as subscription:
        async for event in subscription:
            result.append(event)
            if len(result) == count:
                break
    return result


async def test_an_event_is_stored_as_it_was_said_and_its_result_is_its_place(target: str) -> None:
    async with Client(target) as client:
        result = await client.publish(
            kind="note",
            entity="n1",
            verb="shared",
            workspace=W,
            data=Note(id="n1", title="Hello"),
            actor="ann",
            correlation_id="c1",
        )
        (received,) = await stored(client, 1)
        assert (received.sequence, received.cursor) == (result.sequence, result.cursor)
        event = received.event
        assert (event.id, event.type, event.actor) == (result.event_id, "note.shared", "ann")
        assert (event.note.title, event.correlation_id, event.workspace_id) == ("Hello", "c1", W)
        assert not result.repeated


async def test_a_request_id_makes_a_repetition_give_the_same_place(target: str) -> None:
    async with Client(target) as client:
        fields = {"kind": "note", "entity": "n1", "verb": "shared", "request_id": "r1"}
        first = await client.publish(**fields)  # type: ignore[arg-type]
        again = await client.publish(**fields)  # type: ignore[arg-type]
        assert (again.cursor, again.sequence, again.repeated) == (first.cursor, first.sequence, True)
        batch = [shared("a"), shared("b")]
        one = await client.publish_batch(batch, request_id="r2")
        two = await client.publish_batch(batch, request_id="r2")
        assert [each.sequence for each in one] == [each.sequence for each in two]
        assert [each.repeated for each in two] == [True, True]


async def test_what_is_expected_holds_or_the_present_version_is_told(target: str) -> None:
    async with Client(target) as client:
        first = await client.publish(kind="note", entity="n1", verb="shared", workspace=W, expect=0)
        with pytest.raises(VersionConflict) as conflict:
            await client.publish(kind="note", entity="n1", verb="shared", workspace=W, expect=0)
        assert conflict.value.conflicts == (("event", first.version, first.cursor),)
        second = await client.publish(
            kind="note", entity="n1", verb="shared", workspace=W, expect=first.cursor
        )
        assert second.version > first.version
        with pytest.raises(VersionConflict) as conflict:
            await client.publish_batch([shared("n1", first.version), shared("n2"), shared("n3", 99)])
        assert [version for _, version, _ in conflict.value.conflicts] == [second.version, 0]
        assert len(await stored(client, 2)) == 2
        async with client.publisher("p") as publisher:
            good = await publisher.publish(shared("n1", second.version))
            bad = await publisher.publish(shared("n2", 7))
            last = await publisher.publish(shared("n2", 0))
            with pytest.raises(VersionConflict):
                await bad
            assert (await good).version > second.version
            assert (await last).sequence > (await good).sequence


async def test_faulty_events_are_typed_errors_of_their_own(target: str) -> None:
    async with Client(target) as client:
        with pytest.raises(ArgumentInvalid, match=r"event\.verb"):
            await client.publish(kind="note", entity="n1", verb="updated", workspace=W)
        async with client.publisher() as publisher:
            faulty = [
                await publisher.publish(draft(kind="note", entity="e", verb="updated", workspace=W)),
                await publisher.publish(draft(kind="note", entity="e", verb="shared", workspace="mine")),
                await publisher.publish(draft(kind="unheard", entity="e", verb="shared", workspace=W)),
            ]
            good = await publisher.publish(shared("e"))
            assert (await good).sequence > 0
            for publication in faulty:
                with pytest.raises(ArgumentInvalid):
                    await publication


async def test_a_later_run_goes_on_and_old_places_are_given_again(target: str) -> None:
    async with Client(target) as client:
        async with client.publisher("file") as publisher:
            first = [await publisher.publish(shared(f"e{n % 7}"), sequence=n * 2) for n in range(1, 1502)]
        assert publisher.reached == 3002
        async with client.publisher("file") as publisher:
            assert publisher.reached == 3002
            old = await publisher.publish(shared("e1"), sequence=2)
            late = await publisher.publish(shared(f"e{1500 % 7}"), sequence=3000)
            new = await publisher.publish(shared("e1"))
            assert await old == ALREADY_STORED
            again = await late
            assert (again.cursor, again.repeated) == (first[1499].result().cursor, True)
            assert (await new).sequence > again.sequence
            assert new.sequence == 3003


async def test_a_second_publisher_of_a_name_ends_the_first(target: str) -> None:
    async with Client(target) as one, Client(target) as two:
        first = one.publisher("p")
        await first.__aenter__()
        await (await first.publish(shared("a")))
        async with two.publisher("p") as second:
            assert second.reached == 1
            await (await second.publish(shared("b")))
            with pytest.raises(ProducerFenced):
                await store(first, "c")
            await first.close()
            await (await second.publish(shared("d")))
        received = await stored(two, 3)
        assert [each.event.subject for each in received] == ["a", "b", "d"]


@pytest.mark.parametrize("is_taken", [True, False])
async def test_who_comes_back_goes_on_only_where_nobody_else_began(target: str, is_taken: bool) -> None:
    async with tcp_proxy(target) as proxy, Client(proxy.address) as one, Client(target) as two:
        first = one.publisher("p")
        await first.__aenter__()
        await (await first.publish(shared("a")))
        proxy.swallow()
        lost = await first.publish(shared("mine"))
        if is_taken:
            # The second event of the name is another's now: what the first one sent must not pass for it.
            async with two.publisher("p") as second:
                assert (await (await second.publish(shared("theirs")))).sequence > 0
        proxy.cut()
        if is_taken:
            with pytest.raises(OutcomeUnknown) as unknown:
                await lost
            assert isinstance(unknown.value.__cause__, ProducerFenced)
            with pytest.raises(ProducerFenced):
                await first.flush()
        else:
            assert not (await lost).repeated
            assert first.reconnections == 1
        await first.close()
        received = await stored(two, 2)
        assert [each.event.subject for each in received] == ["a", "theirs" if is_taken else "mine"]
