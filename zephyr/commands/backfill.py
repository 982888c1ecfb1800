"""``zephyr bridge backfill``: asks the bridge that streams to put a table's rows into the stream again."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import nats
import nats.errors
import orjson
import typer
from nats.aio.client import Client as NatsClient

from bridge.progress import CopyProgress
from bridge.settings import BridgeSettings, load_settings
from protos.events.v1 import stream_format as fmt
from zephyr.console import CommandError, console, run
from zephyr.copy_bar import CopyBar

_SILENCE_S = 60.0


def backfill(
    table: Annotated[str, typer.Argument(help="A mapped table, schema.table.")],
    where: Annotated[str, typer.Option(help="SQL condition on the rows; all of them without it.")] = "",
    chunk_rows: Annotated[int, typer.Option(min=1, max=10_000, help="Rows that are read at once.")] = 500,
    max_rows_per_s: Annotated[int, typer.Option(min=0, help="How fast at most; 0: no limit.")] = 0,
    nats_url: Annotated[
        str | None, typer.Option(help="NATS server with JetStream.", envvar="ZEPHYR_NATS_URL")
    ] = None,
) -> None:
    """Put a table's rows into the stream again, as `read` events, while changes stream on.

    The bridge that streams does it, and goes on with it after a restart, whether this command waits or not.
    """
    rows = run(ask_for_backfill(load_settings(nats_url=nats_url), table, where, chunk_rows, max_rows_per_s))
    console.print(f"{rows} rows of {table} were read")


async def ask_for_backfill(
    settings: BridgeSettings, table: str, where: str, chunk_rows: int = 500, max_rows_per_s: int = 0
) -> int:
    """Has the bridge that streams read rows again, and waits for it; gives how many they were.

    Raises:
        CommandError: no bridge streams, or it cannot do it.
    """
    request = {"table": table, "where": where, "chunk_rows": chunk_rows, "max_rows_per_s": max_rows_per_s}
    return await _backfill(settings.nats_url, settings.stream, orjson.dumps(request))


async def _backfill(url: str, stream: str, request: bytes) -> int:
    try:
        client = await nats.connect(url, name="zephyr-backfill", connect_timeout=5, max_reconnect_attempts=10)
    except (nats.errors.Error, OSError) as exc:
        raise CommandError(
            f"NATS cannot be reached at {url.rsplit('@', 1)[-1]}", "start it, or correct ZEPHYR_NATS_URL", 3
        ) from exc
    bar = CopyBar(console, "reading")
    try:
        return await _follow(client, stream, request, bar)
    finally:
        bar.stop()
        await client.close()


async def _follow(client: NatsClient, stream: str, request: bytes, bar: CopyBar) -> int:
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(fmt.backfill_subject(stream), request, reply=inbox)
    began_at = time.monotonic()
    while True:
        try:
            message = await subscription.next_msg(timeout=_SILENCE_S)
        except nats.errors.TimeoutError as exc:
            raise CommandError(
                f"the bridge said nothing for {_SILENCE_S:g} s",
                "if it was given up or is away, it goes on when it streams again",
                3,
            ) from exc
        except asyncio.CancelledError:
            console.print("the bridge goes on with it")
            raise
        if (message.headers or {}).get("Status") == "503":
            raise CommandError(f"no bridge streams into {stream!r}", "start one: zephyr bridge run", 3)
        said = orjson.loads(message.data)
        if "error" in said:
            raise CommandError(str(said["error"]), "correct the table or the condition, or wait")
        rows, is_over = int(said["rows"]), bool(said.get("done"))
        rate = rows / max(time.monotonic() - began_at, 1e-6)
        bar.show(
            CopyProgress(str(said["table"]), 1, 1, rows, max(rows, int(said["expected"])), rate, is_over)
        )
        if is_over:
            return rows
