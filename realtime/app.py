"""The server's life: what is opened, in which order, and how it is closed.

Opened: cache and database (lazily connected), NATS, the source with its hub, the projector,
the gRPC services. Closed in the reverse order, in stages: health says NOT_SERVING, clients
are told to go, streams end after what is queued, then the tasks stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc
import nats.errors
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from nats.aio.client import Client as NatsClient

from protos.events.v1 import publish_pb2, read_pb2, read_pb2_grpc, stream_pb2
from realtime.auth.load import load_policy
from realtime.auth.policy import Policy
from realtime.auth.read_access import ReadAccess
from realtime.broadcast.audience import Audience
from realtime.broadcast.receiver import Receiver
from realtime.broadcast.sender import Sender
from realtime.cache import RedisCache
from realtime.catchup import CatchUp
from realtime.database import Database
from realtime.errors import SettingInvalid, SourceUnavailable
from realtime.hub import Hub, HubLimits
from realtime.jetstream import StreamReader
from realtime.projection import project
from realtime.projector import Projector
from realtime.publish.arrivals import Arrivals
from realtime.publish.broker import Broker
from realtime.publish.draft import Drafter
from realtime.publish.payloads import load_payloads
from realtime.publish.places import Places
from realtime.publish.publisher import Publisher
from realtime.publish.table import Producers
from realtime.publish.window import Allowance
from realtime.read_after import ReadAfter
from realtime.services.broadcast import Broadcasting
from realtime.services.cloud_events import CloudEventRequests
from realtime.services.list_events import ListEvents
from realtime.services.publish import PublishService
from realtime.services.read import ReadService
from realtime.services.stream_service import StreamService
from realtime.settings import ServerSettings
from realtime.source import Source
from realtime.states_postgres import PostgresStates
from realtime.subscription import Feed
from realtime.tap import tap

log = structlog.get_logger("server")

_CONNECT_S = 5

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
)
_SERVICES = (
    stream_pb2.DESCRIPTOR.services_by_name["StreamService"].full_name,
    read_pb2.DESCRIPTOR.services_by_name["ReadService"].full_name,
    publish_pb2.DESCRIPTOR.services_by_name["PublisherService"].full_name,
)


class Server:
    """One server process. ``run`` serves until ``stop`` is called. Without a ``policy`` the settings name it."""

    def __init__(self, settings: ServerSettings, policy: Policy | None = None) -> None:
        self._settings = settings
        self._policy = policy or load_policy(settings.policy)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begins to drain; ``run`` returns when it is done."""
        self._stopping.set()

    async def run(self, on_serving: Callable[[str], None] = lambda _: None) -> None:
        """Serves. ``on_serving`` is told the address once the stream was read up to its end.

        Raises:
            SourceUnavailable: NATS could not be reached at the start.
            SettingInvalid: the address cannot be listened on, or a URL is malformed.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            cache = RedisCache(settings.redis_url)
            stack.push_async_callback(cache.close)
            database = Database(settings.postgres_dsn)
            stack.push_async_callback(database.close)
            listener = _ConnectionListener()
            connection = await _connect(settings.nats_url, listener.connection_lost)
            stack.push_async_callback(connection.close)

            # A connection of its own for what lies behind: what is live must not stand in line for it.
            past = await _connect(settings.nats_url, lambda: None, "zephyr-server-past")
            stack.push_async_callback(past.close)

            # And one for what is stored: answers must not stand in line either.
            store_listener = _ConnectionListener()
            store = await _connect(settings.nats_url, store_listener.connection_lost, "zephyr-server-publish")
            stack.push_async_callback(store.close)
            # And one for broadcasts, so that a flood of them is not in front of what is stored.
            beside = await _connect(settings.nats_url, lambda: None, "zephyr-server-broadcast")
            stack.push_async_callback(beside.close)

            # And one for what plain NATS clients ask to be stored.
            asking = await _connect(settings.nats_url, lambda: None, "zephyr-server-requests")
            stack.push_async_callback(asking.close)

            hub = Hub(HubLimits(ring_entries=settings.ring_entries, ring_bytes=settings.ring_bytes))
            reader = StreamReader(connection, settings.stream)
            arrivals = Arrivals()
            source = Source(reader, hub, preload=settings.ring_entries // 4, arrivals=arrivals)
            listener.source = source
            catch_up = CatchUp(hub, StreamReader(past, settings.stream))
            tap(past).pace = catch_up.pace.read
            publisher = await _publisher(settings, self._policy, store, arrivals)
            store_listener.source = publisher.broker
            stack.push_async_callback(publisher.broker.close)
            states = PostgresStates(database)
            projector = Projector(cache)
            audience = Audience(lambda: hub.memberships)
            receiver = Receiver(beside, audience, settings.broadcast_bytes)
            feed = Feed(
                hub,
                source,
                reader,
                catch_up,
                states,
                audience,
            )
            streams = StreamService(
                feed, settings.kinds, policy=self._policy, auth_warning_s=settings.auth_warning_s
            )
            # The hub's memberships are others in another epoch.
            access = ReadAccess(self._policy, lambda user: hub.memberships.workspaces_of(user))  # noqa: PLW0108
            publishing = PublishService(publisher)
            requests = CloudEventRequests(asking, publisher)
            health_servicer = health.aio.HealthServicer()

            server = grpc.aio.server(options=(*_OPTIONS, *_keepalive(settings)))
            server.add_generic_rpc_handlers((streams.handler(), publishing.handler()))
            read_pb2_grpc.add_ReadServiceServicer_to_server(
                ReadService(
                    cache, database, access=access, read_after=ReadAfter(hub, projector, states.position)
                ),
                server,
            )
            ListEvents(feed, settings.kinds, access).register(server)
            Broadcasting(Sender(beside), publisher.drafter, access, settings.broadcast_bytes).register(server)
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
            reflection.enable_server_reflection(
                (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
            await _say_health(health_servicer, is_serving=False)
            address = await _listen(server, settings.listen)

            async with asyncio.TaskGroup() as tasks:
                owned = [
                    tasks.create_task(source.run(), name="source"),
                    tasks.create_task(project(projector, feed), name="projector"),
                    tasks.create_task(publisher.producers.run(), name="producers"),
                    tasks.create_task(receiver.run(), name="broadcasts"),
                    tasks.create_task(requests.run(), name="requests"),
                ]
                try:
                    await self._serve(source, health_servicer, address, on_serving)
                    await health_servicer.enter_graceful_shutdown()
                    streams.drain()
                    publishing.drain()
                    await requests.drain()
                    log.info("draining", streams=streams.streams, at_most_s=settings.drain_s)
                finally:
                    await server.stop(settings.drain_s)
                    for task in owned:
                        task.cancel()
        log.info("stopped")

    async def _serve(
        self,
        source: Source,
        health_servicer: health.aio.HealthServicer,
        address: str,
        on_serving: Callable[[str], None],
    ) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        live = asyncio.ensure_future(source.became_live())
        try:
            await asyncio.wait((stopping, live), return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await _say_health(health_servicer, is_serving=True)
                log.info("serving", address=address)
                on_serving(address)
                await stopping
        finally:
            for waiter in (stopping, live):
                waiter.cancel()
            await asyncio.gather(stopping, live, return_exceptions=True)


class _ConnectionListener:
    """Who is told that the connection broke. The connection is there before its reader is."""

    source: Source | Broker | None = None

    def connection_lost(self) -> None:
        if self.source is not None:
            self.source.connection_lost()


async def _publisher(
    settings: ServerSettings, policy: Policy, connection: NatsClient, arrivals: Arrivals
) -> Publisher:
    """What publishes. Its reader asks over the connection that it stores by."""
    broker = Broker(connection)
    await broker.open()
    reader = StreamReader(connection, settings.stream)
    payloads = load_payloads(settings.publish_types, settings.publish_descriptors)
    drafter = Drafter(settings.kinds, payloads, settings.publish_max_bytes)
    drafter.bounded_by(broker.max_payload)
    return Publisher(
        broker,
        Producers(broker, reader, arrivals),
        Places(arrivals, reader),
        reader,
        drafter,
        policy,
        Allowance(settings.publish_window_bytes),
    )


async def _connect(url: str, on_lost: Callable[[], None], name: str = "zephyr-server") -> NatsClient:
    """Connects once for all; later interruptions are mended by nats-py, for as long as it takes."""

    async def disconnected() -> None:
        log.warning("NATS went away, connecting again")
        on_lost()

    async def reconnected() -> None:
        log.info("NATS is back")

    cause = ""

    async def failed(exc: Exception) -> None:
        nonlocal cause
        cause = str(exc) or type(exc).__name__
        if "permissions violation" in cause.lower():
            log.warning(
                "NATS refuses it", cause=cause, mend="give the user the rights in deploy/nats/zephyr.conf"
            )
        else:
            log.debug("NATS", error=cause)

    connection = NatsClient()
    try:
        # nats-py tries for ever with these options, the first time too.
        async with asyncio.timeout(_CONNECT_S):
            await connection.connect(
                url,
                name=name,
                connect_timeout=_CONNECT_S,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # it sleeps for it: a float will do
                ping_interval=5,
                max_outstanding_pings=2,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
            )
    except (nats.errors.Error, OSError, ValueError) as exc:
        await connection.close()
        raise SourceUnavailable(
            f"NATS cannot be reached at {url.rsplit('@', 1)[-1]}: {cause or exc or type(exc).__name__}",
            "start it, or correct ZEPHYR_NATS_URL",
        ) from exc
    return connection


def _keepalive(settings: ServerSettings) -> tuple[tuple[str, int], ...]:
    """A client that is gone without a word is asked, and its streams end when it does not answer.

    gRPC waits for the answer as long as for that of any ping, 60 s, whatever its keepalive timeout says.
    """
    return (
        ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
    )


async def _listen(server: grpc.aio.Server, listen: str) -> str:
    host, _, _ = listen.rpartition(":")
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as exc:
        raise SettingInvalid(f"cannot listen on {listen}", "free the port, or set ZEPHYR_LISTEN") from exc
    await server.start()
    return f"{host}:{port}"


async def _say_health(servicer: health.aio.HealthServicer, *, is_serving: bool) -> None:
    status = (
        health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
    )
    for name in ("", *_SERVICES):
        await servicer.set(name, status)
