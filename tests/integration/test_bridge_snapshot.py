"""The copy of the tables with which an epoch begins: whole, once, and joined to the changes without a seam."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.epoch import start_new_epoch
from bridge.mapping import load_mapping
from bridge.progress import CopyProgress
from bridge.run import Bridge
from bridge.settings import BridgeSettings
from tests.faults.oracle import Writer, more, writing
from tests.fixtures.bridge import RunningBridge, running, settings_for
from tests.fixtures.stream_reader import Reader, Stored
from tests.integration.bridge_command import UNFIT, execute, refused
from tests.integration.bridge_command import bridge as bridge_command
from tests.integration.snapshot_kit import check, fill, fill_notes, marks


async def test_rows_that_were_there_before(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    fill(dsn, 1500)
    async with running(bridge_settings):
        execute(dsn, "UPDATE notes SET title = 'later' WHERE title = 'note 1'")
        events = await check(stream_reader, dsn)
    read = [message for message in events if message.headers["Zephyr-Verb"] == "read"]
    assert len(read) == 1 + 50 + 1500
    for message in read:
        assert "Zephyr-Commit" not in message.headers
        assert not message.event.HasField("commit")
        assert message.event.type.endswith(".read")
        assert message.event.time > 1_600_000_000_000_000
        assert message.headers["Zephyr-Schema"] == message.event.data_schema
    found = await marks(stream_reader)
    assert [mark.attempt for mark in found] == [1] * len(found)
    assert found[-1].complete
    assert found[-1].rows == len(read)
    async with running(bridge_settings):  # it is not copied again
        assert len(await check(stream_reader, dsn)) == len(events)


async def test_while_others_write(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    writer = Writer(dsn, 7)
    await writer.prepare()
    async with writing(writer):
        await more(writer, 50)
        fill_notes(dsn, 9_000)
        async with running(bridge_settings.model_copy(update={"snapshot_workers": 3})):
            await more(writer, 20)
    async with running(bridge_settings):
        await check(stream_reader, dsn)


async def test_never(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    fill(bridge_settings.postgres_dsn, 10)
    async with running(bridge_settings.model_copy(update={"snapshot": "never"})):
        await stream_reader.caught_up(bridge_settings.postgres_dsn)
        assert await stream_reader.events() == []
        assert await marks(stream_reader) == []


async def test_marks_outlive_a_copy_that_the_stream_cannot_hold(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    fill(bridge_settings.postgres_dsn, 2000)
    settings = bridge_settings.model_copy(update={"stream_max_msgs": 100})
    async with running(settings):
        await stream_reader.caught_up(settings.postgres_dsn)
        assert (await marks(stream_reader))[-1].complete
    async with running(settings) as again:
        assert again.terms[0].term == 2


async def test_a_role_that_may_not_read(bridge_settings: BridgeSettings) -> None:
    dsn = bridge_settings.postgres_dsn
    role = bridge_settings.slot.replace("slot", "role")
    execute(
        dsn,
        f"CREATE ROLE {role} LOGIN REPLICATION",
        f"CREATE PUBLICATION {bridge_settings.publication} FOR TABLE"
        " public.workspaces, public.users, public.memberships, public.notes"
        " WITH (publish_via_partition_root = true)",
    )
    try:
        await refused(
            UNFIT,
            "the tables cannot be copied: permission denied",
            "SELECT",
            "ZEPHYR_SNAPSHOT=never",
            settings=bridge_settings.model_copy(update={"postgres_dsn": dsn.replace("zephyr@", f"{role}@")}),
        )
    finally:
        execute(dsn, f"DROP ROLE {role}")


async def test_slow_and_with_progress(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    fill(bridge_settings.postgres_dsn, 200)
    said: list[CopyProgress] = []
    streams = asyncio.Event()
    settings = bridge_settings.model_copy(update={"snapshot_max_rows_per_s": 500})
    bridge = Bridge(settings, load_mapping(), lambda term: streams.set() if term else None, said.append)
    task = asyncio.ensure_future(bridge.run())
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.wait_for(streams.wait(), 20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began > 0.4
    assert said[-1].is_over
    assert said[-1].rows == 251
    assert [one.rows for one in said] == sorted(one.rows for one in said)
    assert said[-1].tables == 4


async def test_names_and_types_that_need_care(
    postgres_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader, tmp_path: Path
) -> None:
    """Quoted names, a key that is a text, values that COPY escapes; and a table that was rewritten."""
    execute(
        postgres_dsn,
        """CREATE TABLE public."Odd ""Table" ("the key" varchar(40) PRIMARY KEY, "a,b" text, n bigint)""",
        """ALTER TABLE public."Odd ""Table" REPLICA IDENTITY FULL""",
        r"""INSERT INTO public."Odd ""Table" VALUES ('a', E'\\.\t\n\r\\N', 1), ('b', NULL, NULL), ('c', '', 0)""",
    )
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        """
[tables.'public.Odd "Table']
kind = "note"
message = "zephyr.models.v1.Note"
key = "the key"
[tables.'public.Odd "Table'.columns]
"the key" = "id"
"a,b" = "title"
n = "version"
"""
    )
    settings = settings_for(postgres_dsn, nats_url, slot_name)

    def values(events: list[Stored]) -> dict[str, tuple[str, int]]:
        return {m.event.note.id: (m.event.note.title, m.event.note.version) for m in events}

    events: list[Stored] = []
    for number in range(2):
        bridge = RunningBridge(settings, load_mapping(mapping))
        try:
            await bridge.ready()
            await stream_reader.caught_up(postgres_dsn)
        finally:
            await bridge.stop()
        events = await stream_reader.events()
        assert values(events)["a"] == ("\\.\t\n\r\\N", 1)
        if not number:
            assert values(events) == values(events) | {"b": ("", 0), "c": ("", 0)}
            assert len(events) == 3
            execute(
                postgres_dsn,
                f"SELECT pg_drop_replication_slot('{slot_name}')",
                """DELETE FROM public."Odd ""Table" WHERE "the key" = 'b'""",
                """VACUUM FULL public."Odd ""Table" """,
            )
            assert await start_new_epoch(settings) is not None
    assert [(m.event.type, m.event.subject) for m in events[3:]] == [
        ("note.deleted", "b"),
        ("note.read", "a"),
        ("note.read", "c"),
    ]


async def test_a_partitioned_table(
    postgres_dsn: str, nats_url: str, slot_name: str, stream_reader: Reader, tmp_path: Path
) -> None:
    """Its rows are in its partitions: they are copied, held against the stream, and read again."""
    execute(
        postgres_dsn,
        "CREATE TABLE things (id text, region int NOT NULL, title text, PRIMARY KEY (id, region))"
        " PARTITION BY LIST (region)",
        "CREATE TABLE one PARTITION OF things FOR VALUES IN (1)",
        "CREATE TABLE more PARTITION OF things FOR VALUES IN (2, 3) PARTITION BY LIST (region)",
        "CREATE TABLE two (title text, region int NOT NULL, id text NOT NULL)",
        "ALTER TABLE more ATTACH PARTITION two FOR VALUES IN (2)",
        *(f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in ("things", "one", "more", "two")),
        "INSERT INTO things VALUES ('a', 1, 'A'), ('b', 2, 'B'), ('c', 2, 'C')",
    )
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        '[tables."public.things"]\nkind = "note"\nmessage = "zephyr.models.v1.Note"\nkey = "id"\n'
        '[tables."public.things".columns]\nid = "id"\ntitle = "title"\nregion = "version"\n'
    )
    settings = settings_for(postgres_dsn, nats_url, slot_name)

    async def said(after: int = 0) -> list[tuple[str, str]]:
        await stream_reader.caught_up(postgres_dsn)
        events = await stream_reader.events(after)
        return sorted((m.event.type, m.event.subject + m.event.note.title) for m in events)

    bridge = RunningBridge(settings, load_mapping(mapping))
    try:
        await bridge.ready()
        assert await said() == [("note.read", "aA"), ("note.read", "bB"), ("note.read", "cC")]
        after = (await stream_reader.info())["state"]["last_seq"]
        ended = await bridge_command("backfill", "public.things", settings=settings)
        assert "3 rows" in ended.stderr
        assert await said(after) == [("note.read", "aA"), ("note.read", "bB"), ("note.read", "cC")]
    finally:
        await bridge.stop()
    execute(postgres_dsn, "DELETE FROM things WHERE id = 'b'")
    assert await start_new_epoch(settings) is not None
    after = (await stream_reader.info())["state"]["last_seq"]
    bridge = RunningBridge(settings, load_mapping(mapping))
    try:
        await bridge.ready()
        assert await said(after) == [("note.deleted", "bB"), ("note.read", "aA"), ("note.read", "cC")]
    finally:
        await bridge.stop()
