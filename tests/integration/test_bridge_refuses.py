"""``zephyr bridge run`` with servers that are away, a database that is not as it needs it, or wrong settings.

Each is one line with the cause and the mend, and the exit code that the command line
documents. A database in another encoding looks wrong and is not: it is streamed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import nats.js.api
import psycopg
import pytest

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.eventually import eventually
from tests.fixtures.servers import CopyCluster
from tests.fixtures.stream_reader import Reader
from tests.integration.bridge_command import REACH, UNFIT, execute, refused
from zephyr.migrations.runner import migrate
from zephyr.stack.nats import NatsServer
from zephyr.stack.postgres import PostgresServer
from zephyr.stack.server import free_port


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
    dsn = "postgresql://zephyr@127.0.0.1:9/zephyr"
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
        "postgresql://zephyr:hidden@127.0.0.1:notaport/x",
        "postgresql://zephyr:hidden@127.0.0.1:99999/x",
        "postgresql://zephyr@127.0.0.1:1/x?port=hidden",
        "postgresql://zephyr@127.0.0.1,127.0.0.1,127.0.0.1/x?port=1,2",
        "postgresql://zephyr@127.0.0.1/x?sslmode=hidden",
        "postgresql://zephyr:hidden/with-a-slash@127.0.0.1/x",
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


async def test_wal_level_replica(
    nats_url: str, tmp_path: Path, slot_name: str, copy_cluster: CopyCluster
) -> None:
    server = PostgresServer(tmp_path / "pg", {"wal_level": "replica", "fsync": "off", "max_wal_senders": "4"})
    copy_cluster(server.data)
    await server.start()
    try:
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


async def test_no_slot_is_left(
    nats_url: str, tmp_path: Path, slot_name: str, copy_cluster: CopyCluster
) -> None:
    server = PostgresServer(tmp_path / "pg", {"fsync": "off", "max_replication_slots": "1"})
    copy_cluster(server.data)
    await server.start()
    try:
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
