"""``zephyr bridge run`` on servers that are away, or not as it needs them.

Each is one line with the cause and the mend, and the exit code that the command line
documents; nothing is stored, and a bridge that runs rightly is not disturbed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import nats
import nats.js.api
import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import (
    OWNER,
    POSITION,
    STREAM,
    Reader,
    environment_for,
    open_reader,
    running,
    settings_for,
)
from tests.fixtures.databases import database
from tests.fixtures.eventually import eventually
from zephyr.migrations.runner import migrate
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.server import free_port

REACH, UNFIT, HELD, EPOCH, ROW = 3, 4, 5, 6, 7


async def bridge(
    *words: str, settings: BridgeSettings, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``zephyr bridge`` to its end, which must come."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "zephyr", "bridge", *words],
        env=environment_for(settings) | environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


async def refused(code: int, *words: str, settings: BridgeSettings, **environment: str) -> str:
    """The one error line of a bridge that must end with ``code``."""
    ended = await bridge("run", settings=settings, **environment)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    # Nothing stands after it but the list that it announces.
    after = ended.stderr.partition("error: ")[2].splitlines()[1:]
    assert all(line.startswith("  - ") for line in after), ended.stderr
    said = "\n".join([errors[0], *after])
    for word in words:
        assert word in said, said
    return said


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_nats_is_down(bridge_settings: BridgeSettings, nats_server: NatsServer) -> None:
    await nats_server.stop()
    await refused(REACH, "NATS cannot be reached", "ZEPHYR_NATS_URL", settings=bridge_settings)


@pytest.mark.parametrize("url", ["nats://127.0.0.1:notaport", "://", "nats://256.1.1.1:4222"])
async def test_a_nats_url_that_leads_nowhere(bridge_settings: BridgeSettings, url: str) -> None:
    await refused(REACH, "ZEPHYR_NATS_URL", settings=bridge_settings, ZEPHYR_NATS_URL=url)


async def test_nats_without_jetstream(bridge_settings: BridgeSettings, tmp_path: Path) -> None:
    from zephyr.stack import binaries

    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(binaries.nats_server()),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"nats://127.0.0.1:{port}"

    async def answers() -> bool:
        try:
            client = await nats.connect(url, allow_reconnect=False)
        except (OSError, nats.errors.Error):
            return False
        await client.close()
        return True

    try:
        await eventually(answers, what="NATS answers")
        await refused(REACH, "JetStream", settings=bridge_settings, ZEPHYR_NATS_URL=url)
    finally:
        process.kill()
        await process.wait()


async def test_postgres_is_down(bridge_settings: BridgeSettings) -> None:
    dsn = f"postgresql://zephyr@127.0.0.1:{free_port()}/zephyr"
    await refused(
        REACH,
        "Postgres cannot be reached",
        "ZEPHYR_POSTGRES_DSN",
        settings=bridge_settings,
        ZEPHYR_POSTGRES_DSN=dsn,
    )


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://zephyr:hidden@[::1/x",
        "host=127.0.0.1 nonsense hidden",
        "postgresql://zephyr:hidden@127.0.0.1/x?what=ever",
    ],
)
async def test_a_malformed_dsn_is_a_wrong_setting_and_not_quoted(
    bridge_settings: BridgeSettings, dsn: str
) -> None:
    said = await refused(
        2, "ZEPHYR_POSTGRES_DSN is malformed", settings=bridge_settings, ZEPHYR_POSTGRES_DSN=dsn
    )
    assert "hidden" not in said


async def test_a_database_or_role_that_does_not_exist(
    bridge_settings: BridgeSettings, postgres_server: PostgresServer
) -> None:
    await refused(
        UNFIT,
        'database "nowhere" does not exist',
        "correct ZEPHYR_POSTGRES_DSN",
        settings=bridge_settings,
        ZEPHYR_POSTGRES_DSN=postgres_server.dsn_of("nowhere"),
    )
    await refused(
        UNFIT,
        'role "nobody_here" does not exist',
        settings=bridge_settings,
        ZEPHYR_POSTGRES_DSN=bridge_settings.postgres_dsn.replace("zephyr@", "nobody_here@"),
    )


async def test_a_role_without_rights(bridge_settings: BridgeSettings) -> None:
    role = bridge_settings.slot.replace("slot", "role")
    execute(bridge_settings.postgres_dsn, f"CREATE ROLE {role} LOGIN")
    dsn = bridge_settings.postgres_dsn.replace("zephyr@", f"{role}@")
    try:
        await refused(UNFIT, "permission denied", settings=bridge_settings, ZEPHYR_POSTGRES_DSN=dsn)
        execute(bridge_settings.postgres_dsn, f"ALTER ROLE {role} REPLICATION")
        await refused(
            UNFIT,
            "may not change the publication",
            "CREATE PUBLICATION",
            settings=bridge_settings,
            ZEPHYR_POSTGRES_DSN=dsn,
        )
    finally:
        execute(bridge_settings.postgres_dsn, f"DROP ROLE {role}")


async def test_a_setting_that_is_malformed(bridge_settings: BridgeSettings) -> None:
    await refused(2, "ZEPHYR_SLOT", settings=bridge_settings, ZEPHYR_SLOT="Not A Slot")
    await refused(2, "ZEPHYR_BRIDGE_HOLD_BACK_S", settings=bridge_settings, ZEPHYR_BRIDGE_HOLD_BACK_S="soon")


async def test_wal_level_replica(nats_url: str, tmp_path: Path, slot_name: str) -> None:
    server = PostgresServer(tmp_path / "pg", {"wal_level": "replica", "fsync": "off", "max_wal_senders": "4"})
    await server.start()
    try:
        await asyncio.to_thread(migrate, server.dsn)
        await refused(
            UNFIT,
            "wal_level is replica",
            "wal_level = ",
            settings=settings_for(server.dsn, nats_url, slot_name),
        )
    finally:
        await server.stop()


async def test_a_database_without_tables_lists_all_that_is_missing(
    postgres_dsn: str, nats_url: str, slot_name: str
) -> None:
    await refused(
        UNFIT,
        "4 mismatches",
        *(f"public.{table}" for table in ("workspaces", "users", "memberships", "notes")),
        settings=settings_for(postgres_dsn, nats_url, slot_name),
    )


async def test_replica_identity_is_not_enough(bridge_settings: BridgeSettings) -> None:
    execute(bridge_settings.postgres_dsn, "ALTER TABLE notes REPLICA IDENTITY DEFAULT")
    await refused(UNFIT, "ALTER TABLE public.notes REPLICA IDENTITY FULL", settings=bridge_settings)


async def test_no_slot_is_left(nats_url: str, tmp_path: Path, slot_name: str) -> None:
    server = PostgresServer(tmp_path / "pg", {"fsync": "off", "max_replication_slots": "1"})
    await server.start()
    try:
        await asyncio.to_thread(migrate, server.dsn)
        execute(server.dsn, "SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        await refused(
            UNFIT,
            "all replication slots are in use",
            "max_replication_slots",
            settings=settings_for(server.dsn, nats_url, slot_name),
        )
    finally:
        await server.stop()


async def test_a_publication_that_filters_rows(bridge_settings: BridgeSettings) -> None:
    tables = "public.workspaces, public.users, public.memberships, public.notes WHERE (title <> 'secret')"
    execute(
        bridge_settings.postgres_dsn,
        f"CREATE PUBLICATION {bridge_settings.publication} FOR TABLE {tables}"
        " WITH (publish_via_partition_root = true)",
    )
    await refused(UNFIT, "public.notes", "filters its rows", settings=bridge_settings)


async def test_a_second_bridge_is_refused_and_the_first_goes_on(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    async with running(bridge_settings) as first:
        await refused(
            HELD,
            f"another bridge holds the slot '{bridge_settings.slot}'",
            settings=bridge_settings,
            ZEPHYR_BRIDGE_LOCK_WAIT_S="0.1",
        )
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert len(first.terms) == 1


async def test_the_slot_is_read_by_somebody_else(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    conninfo = bridge_settings.postgres_dsn
    other = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, replication="database")
    try:
        other.pgconn.send_query(
            f"START_REPLICATION SLOT {bridge_settings.slot} LOGICAL 0/0"
            f" (proto_version '1', publication_names '{bridge_settings.publication}')".encode()
        )

        def is_read() -> bool:
            with psycopg.connect(conninfo) as connection:
                row = connection.execute(
                    "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (bridge_settings.slot,)
                ).fetchone()
            return row == (True,)

        await eventually(is_read)
        await refused(HELD, "is read by another session", settings=bridge_settings)
    finally:
        await other.close()


async def test_the_slot_is_of_another_kind_or_database(
    bridge_settings: BridgeSettings, postgres_server: PostgresServer, slot_name: str
) -> None:
    execute(
        bridge_settings.postgres_dsn,
        f"SELECT pg_create_physical_replication_slot('{slot_name}_p')",
    )
    try:
        await refused(
            UNFIT, f"'{slot_name}_p' exists", settings=bridge_settings, ZEPHYR_SLOT=f"{slot_name}_p"
        )
    finally:
        execute(bridge_settings.postgres_dsn, f"SELECT pg_drop_replication_slot('{slot_name}_p')")
    with database(postgres_server) as other:
        execute(other, f"SELECT pg_create_logical_replication_slot('{slot_name}', 'pgoutput')")
        await refused(UNFIT, "in database", settings=bridge_settings)


async def test_the_stream_exists_with_other_settings(bridge_settings: BridgeSettings) -> None:
    async with running(bridge_settings):
        pass
    await refused(
        UNFIT,
        "max_msgs is -1, wanted 1000",
        "max_age",
        settings=bridge_settings,
        ZEPHYR_STREAM_MAX_MSGS="1000",
        ZEPHYR_STREAM_MAX_AGE_S="60",
    )


async def test_a_stream_that_takes_only_small_messages(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    async with running(bridge_settings):
        pass
    config = (await stream_reader.info())["config"] | {"max_msg_size": 1000}
    assert "error" not in await stream_reader.api(f"STREAM.UPDATE.{STREAM}", config)
    await refused(UNFIT, "max_msg_size is 1000", settings=bridge_settings)


async def test_a_stream_that_is_not_ours(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    client = stream_reader.client.jetstream()
    await client.add_stream(nats.js.api.StreamConfig(name=STREAM, subjects=["other.>"]))
    await refused(UNFIT, "was not made by Zephyr", "ZEPHYR_STREAM", settings=bridge_settings)
    await client.delete_stream(STREAM)
    await client.add_stream(nats.js.api.StreamConfig(name="OTHER", subjects=["zephyr.0.>"]))
    await refused(UNFIT, "cannot be made", settings=bridge_settings)


async def mended(settings: BridgeSettings, reader: Reader) -> None:
    """``new-epoch`` mends it: a bridge streams again, under another epoch."""
    info = await reader.info()
    former = info["config"]["metadata"]["zephyr-epoch"] if "config" in info else ""
    ended = await bridge("new-epoch", "--yes", settings=settings)
    assert ended.returncode == 0, ended.stderr
    assert "STREAM" not in ended.stdout
    async with running(settings) as running_again:
        execute(settings.postgres_dsn, "INSERT INTO users (email) VALUES ('mended')")
        await reader.caught_up(settings.postgres_dsn)
        assert running_again.terms[0].epoch != former
        assert running_again.terms[0].term == 1
        assert [message.event.user.email for message in await reader.events()] == ["mended"]


async def test_the_stream_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        pass
    assert (await stream_reader.api(f"STREAM.DELETE.{STREAM}"))["success"]
    await refused(UNFIT, "there is no stream", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_slot_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    execute(bridge_settings.postgres_dsn, f"SELECT pg_drop_replication_slot('{bridge_settings.slot}')")
    await refused(EPOCH, "is gone", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_publication_is_gone(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    # What is committed without a publication is never decoded again: made anew it would hide a loss.
    execute(
        bridge_settings.postgres_dsn,
        f"DROP PUBLICATION {bridge_settings.publication}",
        "INSERT INTO users (email) VALUES ('lost')",
    )
    await refused(EPOCH, "the publication", "is gone", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_the_stream_lost_its_end(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        execute(dsn, "INSERT INTO users (email) VALUES ('kept')")
        await stream_reader.caught_up(dsn)
        end = (await stream_reader.info())["state"]["last_seq"]
        execute(dsn, "INSERT INTO users (email) VALUES ('lost')")
        await stream_reader.caught_up(dsn)
        target = await stream_reader.marked_lsn()

        def is_confirmed() -> bool:
            with psycopg.connect(dsn) as connection:
                row = connection.execute(
                    "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
                    " WHERE slot_name = %s",
                    (bridge_settings.slot,),
                ).fetchone()
            return row is not None and row[0] >= target

        await eventually(is_confirmed)
    last = (await stream_reader.info())["state"]["last_seq"]
    for sequence in range(end + 1, last + 1):
        await stream_reader.api(f"STREAM.MSG.DELETE.{STREAM}", {"seq": sequence})
    await refused(EPOCH, "lost its end", "new-epoch", settings=bridge_settings)
    await mended(bridge_settings, stream_reader)


async def test_no_mark_is_left(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    await stream_reader.api(f"STREAM.PURGE.{STREAM}")
    await refused(UNFIT, "no position mark left", "new-epoch", settings=bridge_settings)
    # Nothing was written: nobody was fenced by who did not belong here.
    assert await stream_reader.all() == []
    await mended(bridge_settings, stream_reader)


async def test_marks_that_are_not_ours(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
    await stream_reader.client.jetstream().publish(POSITION, b"\xff\xff")
    await refused(UNFIT, "cannot be read", "zephyr._mark.>", settings=bridge_settings)


async def test_a_bridge_that_does_not_belong_here_disturbs_nobody(
    bridge_settings: BridgeSettings,
    stream_reader: Reader,
    spare_postgres: PostgresServer,
    postgres_server: PostgresServer,
) -> None:
    await asyncio.to_thread(migrate, spare_postgres.dsn)
    async with running(bridge_settings) as right:
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        await refused(
            EPOCH,
            "the stream was written from Postgres",
            settings=bridge_settings,
            ZEPHYR_POSTGRES_DSN=spare_postgres.dsn,
        )
        # The same Postgres and stream, with another slot: it does not exist.
        await refused(
            EPOCH,
            "is gone",
            settings=bridge_settings,
            ZEPHYR_SLOT=f"{bridge_settings.slot}_b",
        )
        owner = await stream_reader.get(last_by_subj=OWNER)
        assert owner is not None
        assert owner.owner.term == 1
        execute(bridge_settings.postgres_dsn, "INSERT INTO users (email) VALUES ('undisturbed')")
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert len(right.terms) == 1
        assert not right.task.done()


async def test_a_row_over_the_limit(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        await stream_reader.caught_up(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO users (email) VALUES ('before')")
        connection.execute("INSERT INTO users (email, display_name) VALUES ('large', repeat('x', 5000))")
        connection.execute("INSERT INTO users (email) VALUES ('after')")
    for _ in range(2):
        await refused(
            ROW,
            "public.users",
            "over the limit of 2048",
            "ZEPHYR_BRIDGE_MAX_EVENT_BYTES",
            settings=bridge_settings,
            ZEPHYR_BRIDGE_MAX_EVENT_BYTES="2048",
        )
    # Held until what follows it is known, so not even the first is there; with the limit raised all are, once.
    async with running(bridge_settings):
        await stream_reader.caught_up(dsn)
    assert [m.event.user.email for m in await stream_reader.events()] == ["before", "large", "after"]


async def test_a_database_in_another_encoding(
    postgres_server: PostgresServer, nats_url: str, slot_name: str, stream_reader: Reader
) -> None:
    name = slot_name.replace("slot", "latin")
    admin = postgres_server.dsn_of("postgres")
    execute(
        admin,
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0",
    )
    dsn = postgres_server.dsn_of(name)
    try:
        await asyncio.to_thread(migrate, dsn)
        async with running(settings_for(dsn, nats_url, slot_name)):
            with psycopg.connect(dsn, client_encoding="UTF8") as connection:
                connection.execute("INSERT INTO users (email, display_name) VALUES ('a', 'Zoë ÆØÅ')")
            await stream_reader.caught_up(dsn)
        assert [m.event.user.display_name for m in await stream_reader.events()] == ["Zoë ÆØÅ"]
    finally:
        from tests.fixtures.databases import drop_slots

        with psycopg.connect(admin, autocommit=True) as connection:
            drop_slots(connection, name)
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


async def test_new_epoch_while_a_bridge_runs(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings) as first:
        ended = await bridge("new-epoch", "--yes", settings=bridge_settings, ZEPHYR_BRIDGE_LOCK_WAIT_S="0.1")
        assert ended.returncode == HELD
        assert "another bridge holds the slot" in ended.stderr
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert len(first.terms) == 1


async def test_other_stream_names(bridge_settings: BridgeSettings, nats_url: str) -> None:
    named = bridge_settings.model_copy(update={"stream": "MINE-2"})
    async with running(named), open_reader(nats_url, "MINE-2") as reader:
        execute(named.postgres_dsn, "INSERT INTO users (email) VALUES ('a')")
        await reader.caught_up(named.postgres_dsn)
        assert len(await reader.events()) == 1
    assert os.environ.get("ZEPHYR_STREAM") is None
