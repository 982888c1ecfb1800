"""A bridge whose slot or stream is another's: it ends with one line, and disturbs nobody."""

from __future__ import annotations

import psycopg

from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running
from tests.fixtures.databases import database
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import OWNER, Reader
from tests.integration.bridge_command import EPOCH, HELD, UNFIT, bridge, execute, refused
from zephyr.stack.postgres import PostgresServer


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


async def test_a_bridge_that_does_not_belong_here_disturbs_nobody(
    bridge_settings: BridgeSettings,
    stream_reader: Reader,
    spare_postgres: PostgresServer,
    postgres_server: PostgresServer,
) -> None:
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


async def test_new_epoch_while_a_bridge_runs(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    async with running(bridge_settings) as first:
        ended = await bridge("new-epoch", "--yes", settings=bridge_settings, ZEPHYR_BRIDGE_LOCK_WAIT_S="0.1")
        assert ended.returncode == HELD
        assert "another bridge holds the slot" in ended.stderr
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert len(first.terms) == 1
