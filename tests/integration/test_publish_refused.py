"""What cannot be published: typed errors for the event that is wrong, and everything else goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import grpc
import pytest
from google.protobuf import any_pb2
from grpc_health.v1 import health_pb2

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import publish_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.app import Server
from realtime.auth import Caller, Scope
from realtime.errors import ArgumentInvalid, PermissionDenied, RequestError, Unauthenticated, Unavailable
from realtime.settings import ServerSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.policy import RuledPolicy
from tests.fixtures.publish_kit import W, batched, new_event, produced, publish_client, refusal
from tests.fixtures.realtime_server import ServerProcess, health_stub, serving
from tests.fixtures.stream_writer import StreamWriter
from zephyr.stack.nats import NatsServer

OTHER = "22222222-2222-4222-8222-222222222222"


def wrong_events() -> list[tuple[pb.NewEvent, str]]:
    """Events that cannot be stored, and the reasons."""
    large = new_event()
    large.note.body = "x" * 5000
    misfit = new_event()
    misfit.user.id = "u"
    unknown = new_event()
    unknown.other.CopyFrom(any_pb2.Any(type_url="type.googleapis.com/acme.v1.Secret"))
    future = new_event(time=time.time_ns() // 1000 + 120_000_000)
    workspace = new_event()
    workspace.workspace_id = "not-a-workspace"
    return [
        (new_event(verb="updated"), "ROW_VERB"),
        (new_event(kind="nothing"), "UNKNOWN_KIND"),
        (new_event("no token"), "ARGUMENT_INVALID"),
        (workspace, "ARGUMENT_INVALID"),
        (future, "TIME_IN_FUTURE"),
        (misfit, "DATA_MISFIT"),
        (unknown, "ARGUMENT_INVALID"),
        (large, "EVENT_TOO_LARGE"),
    ]


async def test_each_alone(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url, publish_max_bytes=4096) as address, publish_client(address) as client:
        for event, reason in wrong_events():
            error = await refusal(client.publish(event))
            assert (error.code, error.reason) == (codes.ERROR_CODE_INVALID_ARGUMENT, reason)
            assert "\n" not in error.message
            assert len(error.violations) == 1
            assert error.violations[0][0].startswith("event")
        assert (await refusal(client.publish(pb.NewEvent()))).violations
        error = await refusal(client.publish(new_event(), producer=pb.ProducerPlace(producer_id="a.b")))
        assert [field for field, _ in error.violations] == ["producer.producer_id", "producer.sequence"]
        assert (await client.publish(new_event(kind="workspace"))).sequence == 1


async def test_what_the_settings_allow(nats_server: NatsServer, writer: StreamWriter) -> None:
    settings = {"extra_kinds": "task", "publish_types": "acme.v1.Order"}
    async with serving(nats_server.url, **settings) as address, publish_client(address) as client:
        event = new_event(kind="task", verb="placed")
        event.other.type_url, event.other.value = "type.googleapis.com/acme.v1.Order", b"\x0a\x01x"
        stored = await client.publish(event)
        message = await writer.connection.jetstream().get_msg("ZEPHYR", stored.sequence)
        assert (message.headers or {})["Zephyr-Schema"] == "acme.v1.Order"
        assert Event.FromString(message.data or b"").other == event.other


async def test_a_batch_names_all_that_is_wrong(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url, publish_max_bytes=4096) as address, publish_client(address) as client:
        batch = [batched("good")]
        batch += [
            pb.BatchedEvent(event=event) for event, reason in wrong_events() if reason != "ARGUMENT_INVALID"
        ]
        error = await refusal(client.batch(batch))
        assert [field.partition(".")[0] for field, _ in error.violations] == [
            f"events[{at}]" for at in range(1, len(batch))
        ]
        rules = await refusal(client.batch([batched("a b"), batched("good"), batched("c d")]))
        assert [field for field, _ in rules.violations] == [
            "events[0].event.entity_id",
            "events[2].event.entity_id",
        ]
        twice = await refusal(client.batch([batched("n", 0), batched("n", 0)]))
        assert [field for field, _ in twice.violations] == ["events[1].expectation"]
        for count, more in (
            (0, {}),
            (1001, {}),
            (1000, {"producer": pb.ProducerPlace(producer_id="p", sequence=1)}),
        ):
            many = await refusal(client.batch([batched("n") for _ in range(count)], **more))
            assert isinstance(many, ArgumentInvalid)
        assert (await client.publish(new_event())).sequence == 1


@pytest.mark.parametrize("producer", ["p", ""])
async def test_wrong_events_on_a_stream_are_their_results(
    nats_server: NatsServer, writer: StreamWriter, producer: str
) -> None:
    async with serving(nats_server.url, publish_max_bytes=4096) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open(producer)
        wrong = wrong_events()
        for at, (event, _) in enumerate(wrong):
            await stream.put([produced(3 * at + 1), produced(3 * at + 2, event), produced(3 * at + 3)])
        await stream.put([pb.ProducedEvent(event=new_event())])  # it has no sequence
        results = await stream.settle(3 * len(wrong) + 1)
        assert stream.sequences == [*range(1, 3 * len(wrong) + 1), 0]
        for at, (_, reason) in enumerate(wrong):
            good, bad, other = results[3 * at : 3 * at + 3]
            assert good.HasField("stored")
            assert other.HasField("stored")
            assert bad.error.code == codes.ERROR_CODE_INVALID_ARGUMENT
            assert stream.errors()[at].reason == reason
        assert [field for field, _ in stream.errors()[-1].violations] == ["sequence"]
        await stream.put([produced(1000)])
        assert (await stream.settle(len(results) + 1))[-1].HasField("stored")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff",
        b"",
        pb.PublishStreamRequest(open=pb.OpenProducer()).SerializeToString(),
        pb.PublishStreamRequest(
            events=pb.ProducedEvents(events=[produced(at + 1000) for at in range(1001)])
        ).SerializeToString(),
    ],
)
async def test_garbage_ends_the_stream_after_what_was_before_it(
    nats_server: NatsServer, writer: StreamWriter, garbage: bytes
) -> None:
    async with serving(nats_server.url) as address, publish_client(address) as client:
        stream = client.stream()
        await stream.open("p")
        for begin in range(1, 1001, 250):
            await stream.put(produced(number) for number in range(begin, begin + 250))
        await stream.send(garbage)
        await stream.put([produced(5000)])
        await stream.until(lambda: stream.closed)
        assert isinstance(stream.closed, ArgumentInvalid)
        assert [result.sequence for result in stream.results if result.HasField("stored")] == list(
            range(1, 1001)
        )
        assert not await stream.read()
        opened = await client.stream().open("p")
        assert (opened.session, opened.reached) == (2, 1000)


async def test_a_stream_begins_with_open(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, publish_client(address) as client:
        for first in (
            pb.PublishStreamRequest(events=pb.ProducedEvents(events=[produced(1)])),
            pb.PublishStreamRequest(open=pb.OpenProducer(producer_id="no token")),
            b"\xff",
        ):
            stream = client.stream()
            await stream.send(first)
            await stream.until(lambda stream=stream: stream.closed)  # type: ignore[misc]
            assert isinstance(stream.closed, ArgumentInvalid)


class Ruled(RuledPolicy):
    """Publishing is ruled by ``may``."""

    def __init__(self, **may: Scope) -> None:
        super().__init__(**dict.fromkeys(may, Scope()))
        self.may = may

    async def publish(self, caller: Caller) -> Scope:
        return self.may[caller.id]


async def test_who_may_publish_what(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = Ruled(ann=Scope(frozenset((W,)), frozenset(("note",))))
    async with serving(nats_server.url, ruled_by=policy) as address, publish_client(address, "ann") as client:
        stored = await client.publish(new_event())
        message = await writer.connection.jetstream().get_msg("ZEPHYR", stored.sequence)
        assert (message.headers or {})["Zephyr-Actor"] == "ann"
        elsewhere = new_event()
        elsewhere.workspace_id = OTHER
        for event in (elsewhere, new_event(kind="user")):
            assert isinstance(await refusal(client.publish(event)), PermissionDenied)
            batch = [batched(), pb.BatchedEvent(event=event)]
            assert isinstance(await refusal(client.batch(batch)), PermissionDenied)
        stream = client.stream()
        await stream.open("p")
        await stream.put([produced(1), produced(2, elsewhere), produced(3)])
        results = await stream.settle(3)
        assert [result.WhichOneof("result") for result in results] == ["stored", "error", "stored"]
        # It may less from now on.
        policy.may["ann"] = Scope(frozenset((OTHER,)))
        policy.change("ann", tells=False)
        await stream.put([produced(4), produced(5, elsewhere)])
        results = await stream.settle(5)
        assert [result.WhichOneof("result") for result in results[3:]] == ["error", "stored"]
        policy.expire_in("ann", -1)
        assert isinstance(await refusal(client.publish(elsewhere)), Unauthenticated)
        async with publish_client(address, "eve") as stranger:
            assert isinstance(await refusal(stranger.publish(new_event())), Unauthenticated)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stranger.stream().open("p")
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_request_id_is_the_callers_own(nats_server: NatsServer, writer: StreamWriter) -> None:
    policy = Ruled(ann=Scope(), bob=Scope())
    async with (
        serving(nats_server.url, ruled_by=policy) as address,
        publish_client(address, "ann") as ann,
        publish_client(address, "bob") as bob,
    ):
        assert not (await ann.publish(new_event(), request_id="1")).repeated
        assert not (await bob.publish(new_event(), request_id="1")).repeated
        assert (await bob.publish(new_event(), request_id="1")).repeated


async def test_a_server_that_stops_gives_the_results_and_says_so(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    server = Server(
        ServerSettings(
            nats_url=nats_server.url,
            listen="127.0.0.1:0",
            redis_url="redis://127.0.0.1:9/0",
            postgres_dsn="postgresql://nobody@127.0.0.1:9/none",
            drain_s=10,
        )
    )
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(server.run(address.set_result))
    async with publish_client(await address) as client:
        service = "zephyr.events.v1.PublisherService"
        health = health_stub(client.channel)
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        stream = client.stream()
        await stream.open("p")
        await stream.put(produced(number) for number in range(1, 1001))
        await stream.settle(1)
        server.stop()
        while await stream.read():
            pass
        assert stream.is_going
        assert stream.sequences == list(range(1, 1001))
    await running


@pytest.mark.timeout(90)
async def test_a_publisher_that_is_faster_than_the_broker_is_slowed(
    nats_server: NatsServer, writer: StreamWriter, server_process: ServerProcess
) -> None:
    """The broker stands still: what is taken in is bounded, and all of it is stored when it goes on."""
    await server_process.start()
    async with publish_client(server_process.address) as client:
        stream = client.stream()
        await stream.open("p")
        before = server_process.memory_bytes
        sent, moved_at = 0, time.monotonic()

        async def send() -> None:
            nonlocal sent, moved_at
            event = new_event()
            event.note.body = "x" * 100_000
            for number in range(1, 401):
                await stream.put([produced(number, event)])
                sent, moved_at = number, time.monotonic()

        assert nats_server.pid is not None
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            sending = asyncio.ensure_future(send())
            await eventually(
                lambda: time.monotonic() - moved_at > 1.5, timeout=20, what="nobody reads any more"
            )
            assert 10 < sent < 200
            assert server_process.memory_bytes - before < 64 * 2**20
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        await stream.settle(400)
        await sending
        assert stream.sequences == list(range(1, 401))
        assert all(result.HasField("stored") for result in stream.results)


async def test_what_waits_on_a_server_is_bounded(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with (
        serving(nats_server.url, publish_window_bytes=2**20) as address,
        publish_client(address) as client,
    ):
        event = new_event()
        event.note.body = "x" * 1_200_000
        assert (await refusal(client.publish(event))).reason == "LIMIT_EXCEEDED"
        streams = [client.stream() for _ in range(5)]
        for stream in streams:
            await stream.open()
        assert [stream.closed is None for stream in streams] == [True, True, True, True, False]
        assert streams[4].closed is not None
        assert streams[4].closed.reason == "LIMIT_EXCEEDED"
        for stream in streams[:4]:
            assert await stream.end() == []
        # What they had is given back.
        assert (await client.publish(new_event())).sequence == 1
        await client.stream().open()


async def test_without_a_broker(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, publish_client(address) as client:
        await client.publish(new_event())
        await nats_server.kill()
        error = await refusal(client.publish(new_event()))
        assert isinstance(error, Unavailable)
        await nats_server.start()

        async def works() -> bool:
            try:
                return (await client.publish(new_event())).sequence > 1
            except RequestError:
                return False

        await eventually(works, timeout=20)
