"""``zephyr bridge deadletters``: the rows that could not become events."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.table import Table
from rich.text import Text

from bridge.dead_letters import DeadLetters, Kept, place_of
from bridge.jetstream import JetStream, connect_nats
from bridge.mapping import load_mapping
from bridge.settings import BridgeSettings, load_settings
from protos.events.v1 import stream_format as fmt
from protos.events.v1.rejected_pb2 import DeadLetter, Rejected
from zephyr.commands.backfill import ask_for_backfill
from zephyr.console import CommandError, console, output, run, write_line

app = typer.Typer(
    no_args_is_help=True, help="Look at the rows that could not become events, and replay them."
)

NatsUrl = Annotated[str | None, typer.Option(help="NATS server with JetStream.", envvar="ZEPHYR_NATS_URL")]
_VALUE_CHARACTERS = 200


@app.command("list")
def list_letters(
    nats_url: NatsUrl = None,
    limit: Annotated[int, typer.Option(help="Show at most so many, the oldest first.", min=1)] = 100,
    table: Annotated[str, typer.Option(help="Only of this table (schema.table).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One letter a line, as protobuf's JSON.")] = False,
) -> None:
    """List dead letters: when, which row, and what is wrong with it."""
    found, more = run(_list(load_settings(nats_url=nats_url), limit, table))
    if as_json:
        for kept in found:
            write_line(MessageToJson(kept.letter, indent=None, preserving_proto_field_name=True))
        return
    if not found:
        console.print("no dead letters" + (f" of {table}" if table else ""))
        return
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "committed", "table", "key", "what is wrong"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("id", "committed"))
    for kept in found:
        letter = kept.letter
        shown.add_row(
            place_of(letter),
            _time(letter),
            letter.rejected.table,
            letter.key or "NULL",
            letter.rejected.message,
        )
    output.print(shown)
    if more:
        console.print(f"there are more: --limit {limit * 10} shows them")


@app.command("show")
def show(
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `list` shows it, or the event's whole id.")
    ],
    nats_url: NatsUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="As protobuf's JSON.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut long values.")] = False,
) -> None:
    """Show a dead letter: the row as the source's log has it."""
    letter = run(_find(load_settings(nats_url=nats_url), letter_id))
    if as_json:
        write_line(MessageToJson(letter, indent=None, preserving_proto_field_name=True))
        return
    rejected = letter.rejected
    reason = Rejected.Reason.Name(rejected.reason).removeprefix("REASON_").lower().replace("_", " ")
    for name, value in (
        ("id", letter.id),
        ("committed", _time(letter)),
        ("table", f"{rejected.table} ({letter.kind}, {rejected.verb})"),
        ("reason", f"{reason}: {rejected.message}"),
    ):
        output.print(Text.assemble((f"{name:<10}", "dim"), value))
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("column", no_wrap=True)
    shown.add_column("value", overflow="fold")
    for column in letter.columns:
        cell = Text("unchanged, left out by the log" if column.unchanged else "NULL", style="dim")
        if column.HasField("value"):
            cell = Text(column.value)
            if not whole and len(column.value) > _VALUE_CHARACTERS:
                cell = Text(f"{column.value[:_VALUE_CHARACTERS]}… ({len(column.value)} characters, --whole)")
        shown.add_row(Text(column.name, style="bold" if column.name == rejected.column else ""), cell)
    output.print(shown)


@app.command("replay")
def replay(
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `list` shows it, or the event's whole id.")
    ],
    nats_url: NatsUrl = None,
) -> None:
    """Put the row into the stream as it is now, once it can be an event.

    A letter is a past state, and later ones may stand behind it: so the row is read again, between
    watermarks, by the bridge that streams, as `zephyr bridge backfill` does. A row that is gone
    needs no replay: its deletion is an event of its own.
    """
    settings = load_settings(nats_url=nats_url)
    letter = run(_find(settings, letter_id))
    rejected = letter.rejected
    if rejected.table == fmt.EVENT_PREFIX:
        raise CommandError("it is a domain event, and no row to read again", "emit it again, corrected")
    if not letter.key:
        raise CommandError(
            f"the row of {rejected.table} has no key to find it by",
            "mend the row: its next change is an event again",
        )
    tables = load_mapping(settings.mapping).tables
    if rejected.table not in tables:
        raise CommandError(f"{rejected.table} is not mapped any more", "name its mapping with ZEPHYR_MAPPING")
    key = tables[rejected.table].key.replace('"', '""')
    value = letter.key.replace("'", "''")
    rows = run(ask_for_backfill(settings, rejected.table, f"\"{key}\"::text = '{value}'"))
    if rows:
        console.print(f"the row {letter.key} of {rejected.table} was read again")
    else:
        console.print(f"the row {letter.key} of {rejected.table} is gone: there is nothing to replay")


async def _list(settings: BridgeSettings, limit: int, table: str) -> tuple[list[Kept], bool]:
    found: list[Kept] = []
    async with AsyncExitStack() as stack:
        letters = await _open(stack, settings)
        async with aclosing(letters.read()) as kept_letters:
            async for kept in kept_letters:
                if table and kept.letter.rejected.table != table:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(kept)
    return found, False


async def _find(settings: BridgeSettings, letter_id: str) -> DeadLetter:
    async with AsyncExitStack() as stack:
        letters = await _open(stack, settings)
        async with aclosing(letters.read()) as kept_letters:
            async for kept in kept_letters:
                if letter_id in (kept.letter.id, place_of(kept.letter)):
                    return kept.letter
    raise CommandError(f"there is no dead letter {letter_id}", "see: zephyr bridge deadletters list")


async def _open(stack: AsyncExitStack, settings: BridgeSettings) -> DeadLetters:
    connection = await connect_nats(settings.nats_url, settings.publish_timeout_s)
    stack.push_async_callback(connection.close)
    return DeadLetters(JetStream(connection, settings.stream, settings.publish_timeout_s), settings.stream)


def _time(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.commit_time / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
