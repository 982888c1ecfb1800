"""The client's publisher against a server that does what a test says: order, retries, bounds, and what it tells."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from realtime.client import Client, Draft, draft
from realtime.client.published import ALREADY_STORED
from realtime.errors import (
    ArgumentInvalid,
    NotPublished,
    OutcomeUnknown,
    ProducerFenced,
    PublishFailed,
    RealtimeError,
    Unavailable,
)
from realtime.status import abort, to_error
from tests.fixtures.eventually import eventually
from tests.fixtures.scripted_publisher import ScriptedSession, scripted_publisher, serve_all, stored

pytestmark = pytest.mark.timeout(60)


def shared(number: int) -> Draft:
    return draft(kind="note", entity=f"e{number}", verb="shared")


async def test_all_is_stored_at_the_end_of_the_block_and_many_share_a_request() -> None:
    async with scripted_publisher(serve_all) as server, Client(server.address) as client:
        async with client.publisher("billing") as publisher:
            publications = [await publisher.publish(shared(number)) for number in range(3000)]
        assert [each.result().sequence for each in publications] == list(range(1, 3001))
        assert publisher.reached == 3000
        (session,) = server.sessions
        assert session.open.producer_id == "billing"
        assert session.sequences == list(range(1, 3001))
        assert [event.event.entity_id for event in session.events] == [f"e{n}" for n in range(3000)]
        assert len(session.requests) < 100
        assert max(session.requests) <= 1000


async def test_one_event_goes_at_once_and_its_result_can_be_awaited() -> None:
    async with scripted_publisher(serve_all) as server, Client(server.address) as client:
        async with client.publisher() as publisher:
            publication = await publisher.publish(shared(1))
            result = await publication
            assert (result.cursor, result.sequence, result.event_id) == (b"c1", 1, "p.1")
            assert not result.repeated
        assert len(server.sessions[0].open.producer_id) == 32  # a random one


async def test_after_a_lost_connection_what_has_no_result_is_sent_again_in_order() -> None:
    async def loses(session: ScriptedSession) -> None:
        await session.opened(1)
        await session.until(10)
        await session.store(*range(1, 5))
        await session.break_off()

    async def goes_on(session: ScriptedSession) -> None:
        await session.opened(2, reached=7)
        await session.until(6)
        await session.store(5, 6, 7, repeated=True)
        await session.store(8, 9, 10)
        await session.hold()

    async with scripted_publisher(loses, goes_on) as server, Client(server.address) as client:
        async with client.publisher("p") as publisher:
            publications = [await publisher.publish(shared(number)) for number in range(10)]
        assert server.sessions[0].sequences == list(range(1, 11))
        assert server.sessions[1].sequences == list(range(5, 11))
        again = {event.sequence: event.event.entity_id for event in server.sessions[1].events}
        assert again[5] == "e4"
        assert [each.result().repeated for each in publications] == [False] * 4 + [True] * 3 + [False] * 3
        assert publisher.reconnections == 1


async def test_a_server_that_goes_away_is_come_back_to_when_it_said() -> None:
    async def goes(session: ScriptedSession) -> None:
        await session.opened()
        await session.send(going_away=pb.PublisherGoingAway(retry_after_ms=1))
        await session.hold()

    async with scripted_publisher(goes, serve_all) as server, Client(server.address) as client:
        async with client.publisher("p") as publisher:
            await publisher.publish(shared(1))
        assert server.sessions[-1].sequences == [1]


async def test_a_result_that_says_unavailable_is_asked_for_again() -> None:
    async def is_ill(session: ScriptedSession) -> None:
        await session.opened()
        await session.until(2)
        await session.store(1)
        error = to_error(Unavailable("the broker is away"))
        await session.send(results=pb.PublishResults(results=[pb.PublishResult(sequence=2, error=error)]))
        await session.hold()

    async with scripted_publisher(is_ill, serve_all) as server, Client(server.address) as client:
        async with client.publisher("p") as publisher:
            await publisher.publish(shared(1))
            await publisher.publish(shared(2))
        assert server.sessions[1].sequences == [2]


async def test_the_window_is_never_exceeded_and_who_publishes_waits() -> None:
    go_on = asyncio.Event()

    async def is_slow(session: ScriptedSession) -> None:
        await session.opened(events=3)
        await session.until(3)
        await go_on.wait()
        while True:
            await session.store(*session.sequences[-session.requests[-1] :])
            await session.send(window=pb.PublishWindow(events=2, bytes=1 << 20))
            if not await session.read():
                break

    async with scripted_publisher(is_slow) as server, Client(server.address) as client:
        async with client.publisher("p") as publisher:
            for number in range(3):
                await publisher.publish(shared(number))
            fourth = asyncio.ensure_future(publisher.publish(shared(3)))
            await eventually(lambda: server.sessions[0].sequences == [1, 2, 3])
            assert not fourth.done()
            go_on.set()
            assert (await fourth).sequence == 4
            fifth = asyncio.ensure_future(publisher.publish(shared(4)))
            fifth.cancel()
            for number in range(5, 20):
                await publisher.publish(shared(number))
                assert publisher.waiting <= 3
        assert max(server.sessions[0].requests) <= 3
        assert fifth.cancelled()
        assert "e4" not in {event.event.entity_id for event in server.sessions[0].events}
        assert server.sessions[0].sequences == list(range(1, 20))


async def test_a_bound_of_ones_own_holds_beside_the_window() -> None:
    async with scripted_publisher(serve_all) as server, Client(server.address) as client:
        async with client.publisher("p", in_flight=7) as publisher:
            for number in range(100):
                await publisher.publish(shared(number))
                assert publisher.waiting <= 7
        assert server.sessions[0].sequences == list(range(1, 101))
        assert max(server.sessions[0].requests) <= 7
        with pytest.raises(ArgumentInvalid, match="in_flight: with 0 nothing can be sent"):
            client.publisher("p", in_flight=0)


async def test_a_refused_event_is_its_own_result_and_the_publisher_goes_on() -> None:
    async def refuses_the_second(session: ScriptedSession) -> None:
        await session.opened()
        await session.until(3)
        error = to_error(ArgumentInvalid("verb", "'updated' is of rows"))
        results = [pb.PublishResult(sequence=2, error=error)]
        await session.store(1)
        await session.send(results=pb.PublishResults(results=results))
        await session.store(3)
        await session.hold()

    for asks in (True, False):
        async with scripted_publisher(refuses_the_second) as server, Client(server.address) as client:
            publisher = client.publisher("p")
            await publisher.__aenter__()
            publications = [await publisher.publish(shared(number)) for number in range(3)]
            assert (await publications[2]).sequence == 3
            if asks:
                with pytest.raises(ArgumentInvalid, match="'updated' is of rows"):
                    await publications[1]
                await publisher.flush()
            else:
                with pytest.raises(PublishFailed, match="event 2 is not stored: verb: 'updated'") as failed:
                    await publisher.flush()
                assert (failed.value.count, failed.value.sequence) == (1, 2)
                await publisher.flush()  # it is told once
            await publisher.close()


async def test_a_fenced_producer_says_of_each_event_what_is_known() -> None:
    async def is_fenced(session: ScriptedSession) -> None:
        await session.opened(events=2)
        await session.until(2)
        await session.store(1)
        await session.send(closed=pb.ProducerClosed(error=fenced()))

    async with scripted_publisher(is_fenced) as server, Client(server.address) as client:
        publisher = client.publisher("p")
        await publisher.__aenter__()
        publications = [await publisher.publish(shared(number)) for number in range(2)]
        with pytest.raises(ProducerFenced):
            await publisher.__aexit__(None, None, None)
        assert publications[0].result().sequence == 1
        with pytest.raises(OutcomeUnknown, match="event 2 may be stored or not") as unknown:
            await publications[1]
        assert isinstance(unknown.value.__cause__, ProducerFenced)
        with pytest.raises(ProducerFenced):
            await publisher.publish(shared(2))
        assert len(server.sessions) == 1


def fenced() -> codes.Error:
    return codes.Error(
        code=codes.ERROR_CODE_ABORTED,
        message="another session began",
        details=to_error(_fenced()).details,
    )


def _fenced() -> ProducerFenced:
    return ProducerFenced("p", 1)


async def test_a_block_that_raises_hangs_up_and_says_what_was_never_sent() -> None:
    async def holds(session: ScriptedSession) -> None:
        await session.opened(events=10_000)
        await session.hold()

    async with scripted_publisher(holds) as server, Client(server.address) as client:
        publisher = client.publisher("p")
        await publisher.__aenter__()
        publication = await publisher.publish(shared(1))
        await publisher.__aexit__(ValueError, ValueError("of the block"), None)
        assert isinstance(publication.error, NotPublished)


async def test_a_client_that_closes_ends_its_publishers() -> None:
    async def holds(session: ScriptedSession) -> None:
        await session.opened()
        await session.hold()

    async with scripted_publisher(holds) as server:
        client = Client(server.address)
        publisher = client.publisher("p")
        await publisher.__aenter__()
        publication = await publisher.publish(shared(1))
        flushing = asyncio.ensure_future(publisher.flush())
        await eventually(lambda: publication.was_sent)
        await client.close()
        with pytest.raises(RealtimeError, match="the client was closed"):
            await flushing
        assert isinstance(publication.error, OutcomeUnknown)


async def test_sequences_of_the_caller_only_grow_and_old_ones_are_said_to_be_stored() -> None:
    async def knows_five(session: ScriptedSession) -> None:
        await session.opened(reached=5)
        await session.until(2)
        old = pb.PublishResult(sequence=4, already_stored=pb.AlreadyStored())
        await session.send(
            results=pb.PublishResults(results=[old, pb.PublishResult(sequence=17, stored=stored(17))])
        )
        await session.hold()

    async with (
        scripted_publisher(knows_five) as server,
        Client(server.address) as client,
        client.publisher("file") as publisher,
    ):
        assert publisher.reached == 5
        old = await publisher.publish(shared(4), sequence=4)
        new = await publisher.publish(shared(17), sequence=17)
        with pytest.raises(ArgumentInvalid, match="sequence: 17 comes after 17"):
            await publisher.publish(shared(17), sequence=17)
        assert await old == ALREADY_STORED
        assert (await new).sequence == 17
        assert publisher.reached == 17


async def test_a_later_run_goes_on_behind_what_is_stored() -> None:
    async def knows_five(session: ScriptedSession) -> None:
        await session.opened(reached=5)
        while await session.read():
            await session.store(*session.sequences[-session.requests[-1] :])

    async with (
        scripted_publisher(knows_five) as server,
        Client(server.address) as client,
        client.publisher("p") as publisher,
    ):
        assert (await publisher.publish(shared(1))).sequence == 6


async def test_patience_ends_and_a_refused_session_is_told_at_the_beginning() -> None:
    async def is_away(session: ScriptedSession) -> None:
        await session.break_off()

    async def refuses(session: ScriptedSession) -> None:
        await session.send(
            closed=pb.ProducerClosed(error=to_error(ArgumentInvalid("producer_id", "has a dot")))
        )

    async with scripted_publisher(is_away) as server, Client(server.address) as client:
        with pytest.raises(Unavailable, match="broken off"):
            await client.publisher("p", patience_s=0.3).__aenter__()
    async with scripted_publisher(refuses) as server, Client(server.address) as client:
        with pytest.raises(ArgumentInvalid, match="producer_id: has a dot"):
            await client.publisher("p.q").__aenter__()


async def test_a_single_call_is_repeated_with_its_request_id_while_the_server_is_away() -> None:
    async def away_once(request: Any, context: Any) -> Any:
        if len(server.calls) == 1:
            await abort(context, Unavailable("the broker is away"))
        if request.event.verb == "refused":
            await abort(context, ArgumentInvalid("verb", "is not one"))
        return pb.PublishResponse(stored=stored(3))

    async with scripted_publisher(serve_all, unary=away_once) as server, Client(server.address) as client:
        result = await client.publish(kind="note", entity="e", verb="shared", expect=7)
        assert (result.cursor, result.sequence, result.version) == (b"c3", 3, 3)
        first, second = server.calls
        assert first == second
        assert len(first.request_id) == 32
        assert first.expectation.version == 7
        with pytest.raises(ArgumentInvalid, match="verb: is not one"):
            await client.publish(kind="note", entity="e", verb="refused", request_id="mine")
        assert server.calls[-1].request_id == "mine"
        assert len(server.calls) == 3


async def test_a_single_call_that_gives_up_says_how_to_go_on() -> None:
    async def is_away(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    async with scripted_publisher(serve_all, unary=is_away) as server, Client(server.address) as client:
        with pytest.raises(Unavailable) as given_up:
            await client.publish(kind="note", entity="e", verb="shared", request_id="r1", patience_s=0.2)
        assert "call again with request_id='r1'" in given_up.value.mend
        with pytest.raises(ArgumentInvalid, match="patience_s: a request id does not hold for 300 s"):
            await client.publish(kind="note", entity="e", verb="shared", patience_s=300)


async def test_a_batch_keeps_its_order_and_an_empty_one_asks_nothing() -> None:
    async def answers(request: Any, _: Any) -> Any:
        return pb.PublishBatchResponse(stored=[stored(at) for at in range(1, len(request.events) + 1)])

    async with scripted_publisher(serve_all, unary=answers) as server, Client(server.address) as client:
        events: list[Draft | pb.NewEvent] = [
            shared(1),
            pb.NewEvent(kind="note", entity_id="e2", verb="shared"),
            shared(3),
        ]
        results = await client.publish_batch(events)
        assert [each.sequence for each in results] == [1, 2, 3]
        assert [each.event.entity_id for each in server.calls[0].events] == ["e1", "e2", "e3"]
        assert await client.publish_batch([]) == []
        assert len(server.calls) == 1
