"""The client: iterating, leaving and coming back, reconnecting, and the errors that it raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest

from protos.events.v1 import stream_pb2 as pb
from realtime.client import Client, ReceivedEvent, Start, Subscription
from realtime.cursor import Cursor
from realtime.errors import (
    ArgumentInvalid,
    CoverageBroken,
    CursorInvalid,
    CursorReset,
    RealtimeError,
    Unavailable,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import SUBSCRIBE
from tests.fixtures.realtime_server import ServerProcess, serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

EPOCH = "0190a0000000000000aa"


@pytest.fixture
async def client(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[Client]:
    """A client of a server with ten events, in two transactions."""
    await writer.commit(*(Change() for _ in range(6)))
    await writer.commit(*(Change() for _ in range(4)))
    async with serving(nats_server.url) as address, Client(address) as result:
        yield result


async def take(subscription: Subscription, count: int) -> list[ReceivedEvent]:
    result: list[ReceivedEvent] = []
    async with asyncio.timeout(10):
        async for received in subscription:
            result.append(received)
            if len(result) == count:
                break
    return result


def numbers(events: Sequence[ReceivedEvent]) -> list[int]:
    return [received.sequence for received in events]


async def test_an_iteration_may_be_left_and_begun_again(client: Client) -> None:
    async with client.subscribe(start=Start.earliest()) as subscription:
        got = await take(subscription, 3)
        assert numbers(got) == [1, 2, 3]
        assert subscription.cursor == got[-1].cursor
        assert (got[0].kind, got[0].verb) == ("note", "created")
        assert numbers(await take(subscription, 4)) == [4, 5, 6, 7]
        async for batch in subscription.batches():
            assert numbers(batch) == [8, 9, 10]
            break
        assert Cursor.decode(subscription.cursor).sequence == 10


async def test_each_events_cursor_goes_on_after_it(client: Client) -> None:
    async with client.subscribe(start=Start.earliest()) as subscription:
        events = await take(subscription, 10)
    for at in (0, 4, 5, 8):
        async with client.subscribe(start=Start.after(events[at].cursor)) as subscription:
            assert numbers(await take(subscription, 9 - at)) == list(range(at + 2, 11))


async def test_a_read_that_timed_out_costs_nothing(client: Client, writer: StreamWriter) -> None:
    async with client.subscribe(start=Start.earliest()) as subscription:
        await take(subscription, 10)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(aiter(subscription))
            stored = await writer.commit(Change(), Change())
            assert numbers(await take(subscription, 2)) == [item.sequence for item in stored]


async def test_a_live_subscription_gets_what_is_committed_after_ready(
    client: Client, writer: StreamWriter
) -> None:
    workspace = new_id()
    async with client.subscribe(workspaces=[workspace]) as subscription:
        await subscription.ready()
        assert Cursor.decode(subscription.cursor) == Cursor(
            writer.epoch, 10, Cursor.decode(subscription.cursor).timestamp_ns
        )
        await writer.commit(Change(), Change(workspace=workspace))
        (event,) = await take(subscription, 1)
        assert event.sequence == 12
        assert event.event.workspace_id == workspace


async def test_closing_ends_an_iteration(client: Client) -> None:
    subscription = client.subscribe(start=Start.earliest())
    got: list[int] = []

    async def listen() -> None:
        async for received in subscription:
            sequence = received.sequence
            got.append(sequence)

    listening = asyncio.ensure_future(listen())
    await eventually(lambda: len(got) == 10)
    await subscription.close()
    await asyncio.wait_for(listening, 20)


async def test_closing_the_client_ends_an_iteration_with_an_error(client: Client) -> None:
    subscription = client.subscribe()
    await subscription.ready()
    reading = asyncio.ensure_future(anext(aiter(subscription)))
    await eventually(lambda: not reading.done())
    await client.close()
    with pytest.raises(RealtimeError, match="the client was closed"):
        await asyncio.wait_for(reading, 20)


@pytest.mark.parametrize(
    ("start", "kinds", "expected"),
    [
        (Start.live(), ["cat"], ArgumentInvalid),
        (Start.after(b"what"), [], CursorInvalid),
        (Start.after(Cursor(EPOCH, 1, 1).encode()), [], CursorReset),
    ],
)
async def test_a_refusal_is_raised_by_ready_and_by_iterating(
    client: Client, start: Start, kinds: list[str], expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught:
        await client.subscribe(start=start, kinds=kinds).ready()
    with pytest.raises(expected) as again:
        await take(client.subscribe(start=start, kinds=kinds), 1)
    assert str(caught.value) == str(again.value)
    assert caught.value.mend  # type: ignore[attr-defined]


async def test_patience_ends() -> None:
    async with Client("127.0.0.1:9") as client:
        subscription = client.subscribe(patience_s=0.3)
        with pytest.raises(Unavailable, match="the server cannot be reached"):
            await subscription.ready()
        with pytest.raises(Unavailable, match="the server cannot be reached"):
            await asyncio.wait_for(take(subscription, 1), 20)


async def test_it_goes_on_after_its_last_event_when_the_server_is_another(
    server_process: ServerProcess, writer: StreamWriter
) -> None:
    await server_process.start()
    await writer.commit_each(Change() for _ in range(100))
    async with (
        Client(server_process.address) as client,
        client.subscribe(start=Start.earliest()) as subscription,
    ):
        got = await take(subscription, 30)
        await server_process.kill()
        await server_process.start()
        got += await take(subscription, 71 - 1)
        assert numbers(got) == list(range(1, 101))
        stored = await writer.commit(Change())
        assert numbers(await take(subscription, 1)) == [stored[0].sequence]


class _BrokenServer:
    """Says what it is told to, whatever was asked."""

    def __init__(self, *frames: pb.SubscribeResponse) -> None:
        self._frames = frames
        self._server = grpc.aio.server()
        service, method = SUBSCRIBE.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(
            self._subscribe,
            request_deserializer=pb.SubscribeRequest.FromString,
            response_serializer=pb.SubscribeResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )

    async def _subscribe(
        self, requests: AsyncIterator[pb.SubscribeRequest], _: object
    ) -> AsyncIterator[pb.SubscribeResponse]:
        await anext(requests)
        for frame in self._frames:
            yield frame

    async def __aenter__(self) -> str:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


@pytest.mark.parametrize(
    ("coverage", "match"),
    [
        (pb.Coverage(after=4, through=9), "begins after 4, the one before ended at 3"),
        (pb.Coverage(after=3, through=9, matched=2), "says 2 events and has 0"),
    ],
)
async def test_a_gap_is_raised_not_skipped(coverage: pb.Coverage, match: str) -> None:
    frames = (
        pb.SubscribeResponse(coverage=pb.Coverage(after=3, through=3), ready=pb.Ready(epoch=EPOCH)),
        pb.SubscribeResponse(coverage=coverage, progress=pb.Progress()),
    )
    async with _BrokenServer(*frames) as address, Client(address) as client:
        with pytest.raises(CoverageBroken, match=match):
            await take(client.subscribe(), 1)
