"""``zephyr tail``: events as they come."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

from protos.events.v1.stream_pb2 import StreamedEvent
from realtime.client import (
    Batch,
    BroadcastEvent,
    BroadcastsDropped,
    BroadcastSignalSubscription,
    Client,
    ReceivedEvent,
    SnapshotBegins,
    SnapshotEnds,
    SnapshotStart,
    Start,
)
from realtime.client.signals import ScopeChanged, Signal
from realtime.client.wish import Options
from realtime.cursor import Cursor, text_to_bytes
from zephyr.console import CommandError, console, flush_output, run, write_line
from zephyr.signals import on_stop

_SHOWN = {"note": "title", "user": "email", "workspace": "slug", "membership": "user_id"}


def tail(
    target: Annotated[
        str, typer.Option(help="HOST:PORT of the server.", envvar="ZEPHYR_TARGET")
    ] = "127.0.0.1:7400",
    workspace: Annotated[
        list[str] | None, typer.Option(help="Only this workspace (UUID). May be repeated.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only this kind: note, user, workspace, membership. May be repeated."),
    ] = None,
    entity: Annotated[
        list[str] | None, typer.Option(help="Only this entity (UUID). May be repeated.")
    ] = None,
    verb: Annotated[
        list[str] | None, typer.Option(help="Only this verb, such as updated. May be repeated.")
    ] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option(help="Updates only when this field changed, such as title. May be repeated."),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="Deliver only this field of what changed, such as title. May be repeated."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Go on after this cursor: the last line of an earlier run.")
    ] = None,
    earliest: Annotated[
        bool, typer.Option("--earliest", help="Begin at the oldest event that is left.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Begin at what was stored at or after this time: ISO 8601, UTC unless it says."),
    ] = None,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Begin with the present state.")] = False,
    broadcasts: Annotated[
        bool, typer.Option("--broadcasts", help="Broadcasts too: events that are stored nowhere.")
    ] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many events.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with its cursor.")] = False,
) -> None:
    """Print events as they come. The last line on exit is the cursor to go on after.

    Ctrl-C ends it with 0. It reconnects by itself when the server goes away.
    """
    options: Options = {
        "workspaces": workspace or (),
        "kinds": kind or (),
        "entities": entity or (),
        "verbs": verb or (),
        "changed": changed or (),
        "fields": field or (),
        "patience_s": 10,
    }
    start = _start(after, earliest, since, snapshot)
    run(_tail(target, options, start, count, as_json, broadcasts=broadcasts))


def _start(after: str | None, earliest: bool, since: str | None, snapshot: bool) -> Start | SnapshotStart:
    if (after is not None) + earliest + (since is not None) + snapshot > 1:
        raise CommandError(
            "it can begin at one place only", "give one of --after, --earliest, --since and --snapshot", 2
        )
    if after is not None:
        return Start.after(Cursor.decode(text_to_bytes(after)).encode())
    if since is not None:
        try:
            when = datetime.fromisoformat(since)
        except ValueError as exc:
            raise CommandError(
                f"--since {since!r} is no time", "write it as 2026-01-31T12:00:00 or with +02:00 behind", 2
            ) from exc
        return Start.at_time(when if when.tzinfo is not None else when.replace(tzinfo=UTC))
    if snapshot:
        return Start.snapshot()
    return Start.earliest() if earliest else Start.live()


class _Tail:
    """Prints what a subscription gives, and remembers the cursor behind what was printed."""

    def __init__(self, subscription: BroadcastSignalSubscription, count: int | None, as_json: bool) -> None:
        self._subscription = subscription
        self._left = count
        self._as_json = as_json
        self._is_ready = False
        self._within = b""

    async def run(self) -> None:
        await self._subscription.ready()
        self._is_ready = True
        self._subscription.patience_s = None
        console.print("listening; Ctrl-C ends", style="dim")
        async for batch in self._subscription.batches():
            if isinstance(batch, BroadcastEvent):
                if self._print(batch):
                    return
            elif isinstance(batch, Batch):
                for received in batch:
                    is_last = self._print(received)
                    if not batch.in_snapshot:
                        self._within = received.cursor
                    if is_last:
                        return
            else:
                _say(batch)
                continue
            flush_output()
            self._within = b""

    def _print(self, event: ReceivedEvent | BroadcastEvent) -> bool:
        """Whether it is the last one that is wanted."""
        write_line(_as_json(event) if self._as_json else _as_text(event))
        if self._left is None:
            return False
        self._left -= 1
        return self._left == 0

    @property
    def cursor(self) -> bytes:
        """Behind all that was printed, and behind what did not match since. Empty before ``ready``."""
        return self._within or (self._subscription.cursor if self._is_ready else b"")


async def _tail(
    target: str,
    options: Options,
    start: Start | SnapshotStart,
    count: int | None,
    as_json: bool,
    *,
    broadcasts: bool,
) -> None:
    async with (
        Client(target) as client,
        client.subscribe(start=start, signals=True, broadcasts=broadcasts, **options) as subscription,
    ):
        tailing = _Tail(subscription, count, as_json)
        reading = asyncio.ensure_future(tailing.run())
        on_stop(reading.cancel)
        try:
            await reading
        except asyncio.CancelledError:
            if not reading.cancelled():
                raise
        finally:
            if tailing.cursor:
                text = cursor_text(tailing.cursor)
                write_line(json.dumps({"cursor": text}) if as_json else text)
                flush_output()


def _say(signal: Signal | BroadcastsDropped) -> None:
    """What a person ought to know; the rest is the client's business."""
    if isinstance(signal, SnapshotBegins) and signal.reason:
        console.print(f"the state begins anew: {signal.reason}", style="dim")
    elif isinstance(signal, SnapshotEnds):
        console.print(f"the state is whole: {signal.items} items", style="dim")
    elif isinstance(signal, ScopeChanged):
        lost = ", ".join(signal.lost_workspaces)
        console.print(f"not delivered any more: {lost} ({signal.reason})", style="dim")
    elif isinstance(signal, BroadcastsDropped):
        console.print(f"{signal.count} broadcasts were dropped: they came too fast", style="dim")


def cursor_text(cursor: bytes) -> str:
    """A cursor as it stands on a command line."""
    return base64.b64encode(cursor).decode()


def _as_json(received: ReceivedEvent | BroadcastEvent) -> str:
    if isinstance(received, BroadcastEvent):
        return json.dumps({"broadcast": MessageToDict(received.event)}, ensure_ascii=False)
    streamed = StreamedEvent(sequence=received.sequence, cursor=received.cursor, event=received.event)
    return json.dumps(MessageToDict(streamed), ensure_ascii=False)


def _as_text(received: ReceivedEvent | BroadcastEvent) -> str:
    event = received.event
    time = datetime.fromtimestamp(event.time / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]
    field = event.WhichOneof("data")
    label = str(getattr(getattr(event, field), _SHOWN[field])) if field in _SHOWN else ""
    changed = f" ({', '.join(event.changed)})" if event.changed else ""
    if isinstance(received, BroadcastEvent):
        changed = " (broadcast)"
    text = f"{time}  {received.kind:<10} {received.verb:<9} {event.subject}  {label}{changed}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
