"""The users that are shipped for NATS: each can do its work, and nothing that is another's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import psycopg
import pytest
from nats.aio.client import Client as NatsClient
from nats.js.api import ConsumerConfig, DeliverPolicy

from bridge.doctor.finding import Severity
from bridge.settings import BridgeSettings
from protos.events.v1 import publish_pb2 as pb
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.broadcasts import broadcast
from tests.fixtures.eventually import eventually
from tests.fixtures.nats_users import CONFIGURATION, NatsUsers, UserClient, running_nats
from tests.fixtures.publish_kit import W, new_event, publish_client
from tests.fixtures.raw_stream import RawStream, earliest, raw_stream, snapshot
from tests.fixtures.realtime_server import serving
from tests.integration.bridge_command import bridge
from tests.integration.doctor_command import findings_of

STREAM = "ZEPHYR"
ROW = str(fmt.Subject(W, "note", "forged"))
EVENT = str(fmt.Subject(W, "note", "forged", "event"))
LIVE = f"zephyr-live.0.{W}.note.n"
DEAD = f"{fmt.DEAD_LETTERS}.0.e.note.0-0.1"
PUBLISH = f"zephyr-publish.0.{W}.note.n"
OWN_MARKS = (
    fmt.OWNER_SUBJECT,
    fmt.POSITION_SUBJECT,
    fmt.SNAPSHOT_SUBJECT,
    fmt.BACKFILL_SUBJECT,
    fmt.SCHEMA_SUBJECT,
)
STREAM_CHANGES = tuple(
    f"$JS.API.STREAM.{verb}.{STREAM}" for verb in ("UPDATE", "DELETE", "PURGE", "MSG.DELETE")
)
OPERATORS = (fmt.backfill_subject(STREAM), f"zephyr_bridge.status.{STREAM}")
REFUSED = {
    "bridge": (
        *(
            fmt.producer_subject("p"),
            LIVE,
            PUBLISH,
            f"$JS.API.STREAM.DELETE.{STREAM}",
            f"$JS.API.STREAM.PURGE.{STREAM}",
        ),
        f"$JS.API.STREAM.MSG.DELETE.{STREAM}",
    ),
    "server": (ROW, *OWN_MARKS, DEAD, *OPERATORS, *STREAM_CHANGES, "$JS.API.STREAM.CREATE.OTHER", PUBLISH),
    "publisher": (
        *(ROW, EVENT, *OWN_MARKS, fmt.producer_subject("p"), DEAD, LIVE, *OPERATORS, *STREAM_CHANGES),
        *(f"$JS.API.STREAM.MSG.GET.{STREAM}", f"$JS.API.DIRECT.GET.{STREAM}", "$JS.API.STREAM.CREATE.OTHER"),
        f"$JS.API.CONSUMER.CREATE.{STREAM}",
    ),
    "reader": (
        *(
            ROW,
            EVENT,
            *OWN_MARKS,
            fmt.producer_subject("p"),
            DEAD,
            LIVE,
            PUBLISH,
            *OPERATORS,
            *STREAM_CHANGES,
        ),
        *(
            "$JS.API.STREAM.CREATE.OTHER",
            f"$JS.API.CONSUMER.DELETE.{STREAM}.x",
            f"$JS.API.STREAM.MSG.GET.{STREAM}_DEAD",
        ),
    ),
}
DEAF = {
    "bridge": ("zephyr.>", "zephyr-publish.>"),
    "server": ("zephyr.>", "zephyr_bridge.>", "_INBOX_publisher.>"),
    "publisher": (
        "zephyr.>",
        "zephyr-live.>",
        "zephyr-publish.>",
        "_INBOX.>",
        "_INBOX_reader.>",
        "zephyr_bridge.>",
    ),
    "reader": ("zephyr-publish.>", "_INBOX.>", "_INBOX_publisher.>", "zephyr_bridge.>"),
}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[NatsUsers]:
    async with running_nats(tmp_path) as result:
        yield result


@pytest.fixture
def settings(broker: NatsUsers, migrated_dsn: str, slot_name: str) -> BridgeSettings:
    return settings_for(migrated_dsn, broker.url("bridge"), slot_name)


def write(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fill(dsn: str) -> None:
    write(
        dsn,
        f"INSERT INTO workspaces (id, slug, name) VALUES ('{W}', 'one', 'One')",
        f"INSERT INTO notes (workspace_id, title) SELECT '{W}', 'n' || g FROM generate_series(1, 20) g",
    )


async def seen(stream: RawStream, count: int) -> None:
    await stream.open("a", start=earliest())
    await stream.until(lambda: len(stream["a"].events) >= count)


@pytest.mark.timeout(120)
async def test_each_can_do_its_work(broker: NatsUsers, settings: BridgeSettings) -> None:
    dsn = settings.postgres_dsn
    fill(dsn)
    async with (
        running(settings),
        serving(broker.url("server"), postgres_dsn=dsn) as address,
        publish_client(address) as publisher,
        raw_stream(address) as stream,
    ):
        await publisher.publish(new_event("n"))
        await publisher.publish(new_event("n"), producer=pb.ProducerPlace(producer_id="p", sequence=1))
        write(dsn, "UPDATE notes SET title = 'later'")
        emitted = json.dumps({"workspaceId": W, "kind": "note", "entityId": "n", "verb": "emitted"})
        write(dsn, f"SELECT pg_logical_emit_message(true, 'zephyr.event', '{emitted}')")
        await seen(stream, 21 + 2 + 20 + 1)
        await stream.open("s", start=snapshot())
        await stream.until(lambda: stream["s"].end.HasField("snapshot_end"))
        ended = await bridge("backfill", "public.notes", settings=settings)
        assert "20 rows of public.notes were read" in ended.stderr
        assert (await bridge("status", settings=settings)).returncode == 0
        async with broker.client("publisher") as asking:
            headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/till", "ce-type": "note.shared"}
            answer = json.loads((await asking.client.request(PUBLISH, b"", timeout=10, headers=headers)).data)
            assert answer["event_id"] == "1", answer
        async with broker.client("reader") as reader:
            assert await read_all(reader) >= 21 + 2 + 20 + 1 + 1
            assert (await live(reader, dsn)).note.title == "live"
            broadcasts = await reader.client.subscribe(fmt.LIVE_SUBJECTS)
            await reader.client.flush()
            await broadcast(address, new_event("n", "typing"))
            assert Event.FromString((await broadcasts.next_msg(timeout=10)).data).type == "note.typing"
    # A bridge that begins anew reads its own tail, and looks for rows that went meanwhile.
    async with running(settings):
        pass
    assert broker.refusals == []


async def read_all(reader: UserClient) -> int:
    """By a pull consumer, and one message by a direct get."""
    context = reader.client.jetstream()
    last = (await context.stream_info(STREAM)).state.last_seq
    config = ConsumerConfig(inactive_threshold=60)
    consumer = await context.pull_subscribe("zephyr.0.>", stream=STREAM, config=config)
    left = (await consumer.consumer_info()).num_pending or 0
    count = 0
    while left:
        for message in await consumer.fetch(min(left, 100), timeout=5):
            assert Event.FromString(message.data).id == (message.headers or {})[fmt.ID]
            await message.ack()
            left = message.metadata.num_pending
            count += 1
    assert (await context.get_msg(STREAM, last, direct=True)).subject
    return count


async def live(reader: UserClient, dsn: str) -> Event:
    """By an ordered push consumer, as it comes."""
    context = reader.client.jetstream()
    messages = await context.subscribe(
        "zephyr.0.*.note.>",
        stream=STREAM,
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
    )
    write(dsn, f"INSERT INTO notes (workspace_id, title) VALUES ('{W}', 'live')")
    return Event.FromString((await messages.next_msg(timeout=10)).data)


@pytest.mark.parametrize("user", ["bridge", "server", "publisher", "reader"])
async def test_none_can_do_what_is_anothers(broker: NatsUsers, settings: BridgeSettings, user: str) -> None:
    async with running(settings):
        pass
    async with broker.client(user) as client:
        may = [subject for subject in REFUSED[user] if await client.may_publish(subject)]
        hears = [subject for subject in DEAF[user] if await client.may_subscribe(subject)]
    assert (may, hears) == ([], [])
    assert len(broker.refusals) == len(REFUSED[user]) + len(DEAF[user])


async def test_a_reader_of_one_workspace(migrated_dsn: str, slot_name: str, tmp_path: Path) -> None:
    text = CONFIGURATION.read_text("utf-8")
    shipped_rights = text[text.index("READER: {") : text.index("accounts {")]
    own = shipped_rights
    for shipped, instead in {
        f'"$JS.API.CONSUMER.CREATE.{STREAM}"\n': "",
        f"$JS.API.CONSUMER.CREATE.{STREAM}.>": f"$JS.API.CONSUMER.CREATE.{STREAM}.*.zephyr.0.{W}.>",
        f'"$JS.API.STREAM.MSG.GET.{STREAM}"\n': "",
        f'"$JS.API.DIRECT.GET.{STREAM}"\n': "",
        f'"$JS.API.DIRECT.GET.{STREAM}.>"\n': "",
    }.items():
        assert own.count(shipped) == 1, shipped
        own = own.replace(shipped, instead)
    async with running_nats(tmp_path, {shipped_rights: own}) as broker:
        settings = settings_for(migrated_dsn, broker.url("bridge"), slot_name)
        fill(settings.postgres_dsn)
        write(settings.postgres_dsn, "INSERT INTO users (email) VALUES ('of no workspace')")
        async with running(settings), broker.client("reader") as reader:
            context = reader.client.jetstream()
            consumer = await context.pull_subscribe(f"zephyr.0.{W}.>", stream=STREAM)
            assert len(await consumer.fetch(100, timeout=5)) == 21
            # The subject of the request says one filter and the request another.
            config = {"name": "c", "filter_subject": "zephyr.0._.>", "ack_policy": "none"}
            asked = f"$JS.API.CONSUMER.CREATE.{STREAM}.c.zephyr.0.{W}.>"
            body = json.dumps({"stream_name": STREAM, "config": config}).encode()
            answer = json.loads((await reader.client.request(asked, body)).data)
            assert "did not match" in answer["error"]["description"]
            for subject in (
                *(f"$JS.API.CONSUMER.CREATE.{STREAM}", f"$JS.API.CONSUMER.CREATE.{STREAM}.c.zephyr.0._.>"),
                *(f"$JS.API.DIRECT.GET.{STREAM}", f"$JS.API.STREAM.MSG.GET.{STREAM}"),
            ):
                assert not await reader.may_publish(subject)


async def test_a_server_without_a_right_says_so(
    migrated_dsn: str, slot_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_nats(tmp_path, {'"zephyr-live.>", "zephyr-publish.>"': '"zephyr-live.>"'}) as broker:
        async with running(settings_for(migrated_dsn, broker.url("bridge"), slot_name)):
            pass
        said = ""

        def is_said() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "NATS refuses it" in said

        async with serving(broker.url("server")):
            await eventually(is_said)
    assert "zephyr-publish" in said
    assert "deploy/nats/zephyr.conf" in said


async def test_nobody_gets_in_without_a_password(broker: NatsUsers) -> None:
    for url in (f"nats://127.0.0.1:{broker.port}", f"nats://bridge:wrong@127.0.0.1:{broker.port}"):
        client = NatsClient()
        try:
            with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
                await client.connect(url, allow_reconnect=False, max_reconnect_attempts=0)
        finally:
            await client.close()


@pytest.mark.timeout(90)
async def test_the_doctor_finds_them_fine(broker: NatsUsers, settings: BridgeSettings) -> None:
    async with running(settings):
        for user in ("publisher", "reader"):
            found = await findings_of(settings, app_url=broker.url(user), system_url=broker.url("sys"))
            assert found["nats.publishers"].severity is Severity.OK, (user, found["nats.publishers"])
            assert found["nats.sync_interval"].severity is Severity.OK
