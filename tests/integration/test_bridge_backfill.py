"""``zephyr bridge backfill`` while others write: what it reads never replaces what is newer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial

import pytest

from bridge.settings import BridgeSettings
from protos.events.v1.snapshot_pb2 import BackfillMark
from tests.faults.oracle import Writer, check_order, more, writing
from tests.fixtures.bridge import running
from tests.fixtures.bridge_process import BridgeProcess, environment_for
from tests.fixtures.eventually import eventually
from tests.fixtures.stream_reader import Reader, Stored
from tests.fixtures.stream_states import check_states, fold, read_all
from tests.integration.bridge_command import bridge, execute

W1 = "11111111-1111-4111-8111-111111111111"
BACKFILL = "zephyr._mark.0.backfill"


async def check(reader: Reader, dsn: str) -> list[Stored]:
    await reader.caught_up(dsn, timeout=30)
    events = [message for message in await read_all(reader) if not message.is_mark]
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    check_order([message for message in events if "Zephyr-Commit" in message.headers])
    await check_states(events, dsn)
    return events


def fill(dsn: str, notes: int) -> None:
    execute(
        dsn,
        f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One') ON CONFLICT DO NOTHING",
        "INSERT INTO notes (workspace_id, title)"
        f" SELECT '{W1}', 'note ' || g FROM generate_series(1, {notes}) g",
    )


def start(settings: BridgeSettings, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "zephyr", "bridge", "backfill", *words],
        env=environment_for(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reads(events: list[Stored]) -> list[Stored]:
    return [message for message in events if message.headers["Zephyr-Verb"] == "read"]


async def test_a_table_and_some_of_it(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    dsn = bridge_settings.postgres_dsn
    fill(dsn, 120)
    async with running(bridge_settings.model_copy(update={"snapshot": "never"})):
        await stream_reader.caught_up(dsn)
        assert await stream_reader.events() == []
        ended = await bridge("backfill", "public.workspaces", settings=bridge_settings)
        assert (ended.returncode, ended.stderr.strip()) == (0, "1 rows of public.workspaces were read")
        ended = await bridge("backfill", "public.notes", "--chunk-rows", "50", settings=bridge_settings)
        assert (ended.returncode, ended.stderr.strip()) == (0, "120 rows of public.notes were read")
        assert len(reads(await check(stream_reader, dsn))) == 121
        ended = await bridge(
            "backfill", "public.notes", "--where", "title LIKE '%7' AND version = 1", settings=bridge_settings
        )
        assert "12 rows of public.notes were read" in ended.stderr
        assert len(reads(await check(stream_reader, dsn))) == 133
        mark = await stream_reader.get(last_by_subj=BACKFILL)
        assert mark is not None
        assert BackfillMark.FromString(mark.payload).done


async def test_what_cannot_be(bridge_settings: BridgeSettings, stream_reader: Reader) -> None:
    ended = await bridge("backfill", "public.notes", settings=bridge_settings)
    assert ended.returncode == 3
    assert "no bridge streams" in ended.stderr
    fill(bridge_settings.postgres_dsn, 3)
    async with running(bridge_settings):
        for words, said in (
            (("public.nothing",), "is not mapped; mapped are"),
            (("public.notes", "--where", "nonsense"), "does not exist"),
            (("public.notes", "--where", "true); DELETE FROM notes; SELECT (true"), "multiple commands"),
            (("public.notes", "--where", "nextval('x') > 0"), "does not exist"),
            (("public.notes", "--where", "repeat(title, 2000000000) = ''"), "too large"),
        ):
            ended = await bridge("backfill", *words, settings=bridge_settings)
            assert ended.returncode == 1, ended.stderr
            assert said in ended.stderr
            assert "Traceback" not in ended.stderr
        # The stream went on, and the next one is taken.
        ended = await bridge("backfill", "public.notes", settings=bridge_settings)
        assert "3 rows" in ended.stderr
        await check(stream_reader, bridge_settings.postgres_dsn)


async def test_while_others_write_and_the_bridge_is_killed(
    bridge_settings: BridgeSettings, bridge_process: BridgeProcess, stream_reader: Reader
) -> None:
    dsn = bridge_settings.postgres_dsn
    await bridge_process.start()
    writer = Writer(dsn, 7)
    await writer.prepare()
    async with writing(writer):
        await more(writer, 200)
        process = start(bridge_settings, "public.notes", "--chunk-rows", "10", "--max-rows-per-s", "100")
        try:

            async def rows() -> int:
                mark = await stream_reader.get(last_by_subj=BACKFILL)
                return BackfillMark.FromString(mark.payload).rows if mark is not None else 0

            for number in range(2):
                before = await rows()

                async def goes_on(least: int = before) -> bool:
                    return await rows() > least + 20

                await eventually(goes_on, timeout=30)
                if not number:
                    bridge_process.kill()
                    await bridge_process.start()
            assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            process.kill()
            _, said = process.communicate()
        assert "rows of public.notes were read" in said
        await more(writer, 5)
    events = await check(stream_reader, dsn)
    assert reads(events)


async def test_rows_that_change_while_they_are_read(
    bridge_settings: BridgeSettings, stream_reader: Reader
) -> None:
    """Every row is updated again and again: a stale read would stand last."""
    dsn = bridge_settings.postgres_dsn
    async with running(bridge_settings):
        fill(dsn, 100)
        stops = asyncio.Event()

        async def update() -> None:
            number = 0
            while not stops.is_set():
                number += 1
                await asyncio.to_thread(
                    execute,
                    dsn,
                    f"UPDATE notes SET title = 'n{number}' WHERE id IN"
                    " (SELECT id FROM notes ORDER BY random() LIMIT 20)",
                    "DELETE FROM notes WHERE id IN (SELECT id FROM notes ORDER BY random() LIMIT 1)",
                )

        tasks = [asyncio.ensure_future(update()) for _ in range(2)]
        try:
            for _ in range(3):
                ended = await bridge(
                    "backfill", "public.notes", "--chunk-rows", "30", settings=bridge_settings
                )
                assert ended.returncode == 0, ended.stderr
        finally:
            stops.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        events = await check(stream_reader, dsn)
    assert fold(events)


@pytest.mark.parametrize(
    "limit", [{"stream_max_msgs": 400}, {"stream_max_age_s": 3}], ids=("messages", "age")
)
async def test_its_mark_outlives_the_streams_limits_while_it_waits(
    bridge_settings: BridgeSettings, stream_reader: Reader, limit: dict[str, int]
) -> None:
    settings = bridge_settings.model_copy(update={"snapshot": "never", **limit})
    dsn = settings.postgres_dsn
    fill(dsn, 30)

    async def mark() -> tuple[int, BackfillMark]:
        found = await stream_reader.get(last_by_subj=BACKFILL)
        return (found.sequence, BackfillMark.FromString(found.payload)) if found else (0, BackfillMark())

    async def renewed(after: int, rows: int) -> bool:
        sequence, found = await mark()
        assert found.rows in (0, rows)
        return sequence > after

    async with running(settings):
        await stream_reader.caught_up(dsn)
        process = start(settings, "public.notes", "--chunk-rows", "10", "--max-rows-per-s", "1")
        try:
            await eventually(lambda: renewed(0, 10), timeout=30)
            for _ in range(2):
                before = (await mark())[0]
                # As much as evicts it, were it not written again before the rest comes.
                execute(
                    dsn, *["UPDATE notes SET version = version"] * (8 if "stream_max_msgs" in limit else 0)
                )
                await eventually(partial(renewed, before, 10), timeout=30)
        finally:
            process.kill()
            process.communicate()
    async with running(settings):

        async def goes_on() -> bool:
            _, found = await mark()
            return found.rows == 20

        await eventually(goes_on, timeout=30)
