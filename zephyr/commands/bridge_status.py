"""``zephyr bridge status``: who leads, how far it is, what waits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.settings import BridgeSettings
from bridge.survey import Survey, survey
from zephyr.console import output
from zephyr.files import write_json

EXIT_NO_LEADER = 1
EXIT_UNREACHABLE = 3
_WATCH_S = 1.0


async def show_status(settings: BridgeSettings, json_file: Path | None) -> int:
    """Asks once and prints; gives the exit code."""
    found = await survey(settings)
    _write(found, json_file)
    output.print(render(found, settings))
    return _exit_code(found)


async def watch_status(settings: BridgeSettings, json_file: Path | None) -> None:
    """Asks and prints anew every second, until it is cancelled."""
    with Live(console=output, auto_refresh=False) as live:
        while True:
            found = await survey(settings)
            _write(found, json_file)
            live.update(render(found, settings), refresh=True)
            await asyncio.sleep(_WATCH_S)


def render(found: Survey, settings: BridgeSettings) -> RenderableType:
    """What a person reads."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in _rows(found, settings):
        table.add_row(title, text)
    return Group(_headline(found), table)


def _headline(found: Survey) -> Text:
    if found.leads:
        return Text("a bridge leads and streams", style="bold green")
    if found.errors:
        return Text("it cannot be known whether a bridge leads", style="bold red")
    holder = next((each for each in found.sessions if each["holds_lock"]), None)
    if holder is not None:
        return Text("a bridge holds the lock and does not stream yet", style="bold yellow")
    return Text("no bridge runs" if not found.bridges else "no bridge leads", style="bold red")


def _rows(found: Survey, settings: BridgeSettings) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    now = found.slot["now_s"] if found.slot is not None else time.time()
    rows += [("error", Text(reason, style="red")) for reason in found.errors.values()]
    stream, leader = found.stream, found.leader
    owner = stream.get("owner") if stream is not None else None
    if owner:
        # Of a term that is over it is known when it began, and not when it ended.
        last, since = ("", "for {}") if found.leads else (" (the last that led)", "began {} ago")
        since = since.format(_span(now - owner["started_at"]))
        text = f"{owner['owner']}{last} · term {owner['term']} · {since}"
        rows.append(("leader", Text(text)))
    for each in found.sessions:
        if each["holds_lock"]:
            heard = f" · heard {_span(now - each['reply_time'])} ago" if each["reply_time"] else ""
            where = f"session {each['pid']} from {each['address'] or 'a local socket'}"
            rows.append(("", Text(f"{where} · {each['state'] or 'idle'}{heard}")))
    rows.append(("standbys", _standbys(found, now)))
    if "postgres" not in found.errors and "nats" not in found.errors:
        rows.append(("lag", _lag(found)))
    if leader is not None:
        rows += _leader_rows(leader)
    elif found.leads and "nats" not in found.errors:
        rows.append(("in flight", Text("the leader does not answer on NATS", style="yellow")))
    if stream is not None:
        text = f"{stream['name']} · epoch {stream['epoch']} · sequence {stream['last_sequence']}"
        rows.append(("stream", Text(f"{text} · {_size(stream['bytes'])}")))
    elif "nats" not in found.errors:
        rows.append(("stream", Text(f"there is no stream {settings.stream}", style="yellow")))
    if found.slot is not None:
        rows.append(("slot", _slot(found.slot, settings.slot)))
    return rows


def _standbys(found: Survey, now: float) -> Text:
    waiting = [each for each in found.bridges if each["role"] != "leader"]
    sessions = [each for each in found.sessions if not each["holds_lock"]]
    if not waiting and not sessions:
        return Text("none")
    lines = [f"{each['owner']} · {each['role']} for {_span(now - each['since'])}" for each in waiting]
    if len(sessions) > len(waiting):
        lines.append(f"{len(sessions)} wait for the lock, {len(waiting)} of them answer")
    return Text("\n".join(lines))


def _lag(found: Survey) -> Text:
    if found.lag_bytes is None:
        return Text("unknown: nothing is stored yet")
    text = Text(_size(found.lag_bytes))
    if found.lag_s is not None:
        text.append(f" · {found.lag_s:.1f} s")
    text.append(" since the last mark", style="dim")
    return text


def _leader_rows(leader: dict[str, Any]) -> list[tuple[str, RenderableType]]:
    flight, back, beat = leader["in_flight"], leader["held_back"], leader["heartbeat"]
    text = f"{flight['messages']} messages, {_size(flight['bytes'])}"
    if flight["commit_lsn"]:
        text += f" · transaction {_lsn(flight['commit_lsn'])}, {flight['index']} changes so far"
    rows: list[tuple[str, RenderableType]] = [
        ("in flight", Text(text)),
        (
            "held back",
            Text(f"{_size(back['bytes'])} · {back['seconds']:.1f} s of {back['hold_back_s']:g} s"),
        ),
    ]
    if not beat["interval_s"]:
        rows.append(("heartbeat", Text("off")))
    elif beat["is_late"]:
        rows.append(("heartbeat", Text(f"late: under way for {beat['waiting_s']:.1f} s", style="bold red")))
    elif beat["round_trip_s"] is not None:
        rows.append(("heartbeat", Text(f"came back in {beat['round_trip_s'] * 1000:.0f} ms")))
    else:
        rows.append(("heartbeat", Text("none came back yet")))
    if leader["last_error"]:
        ago = _span(time.time() - leader["last_error_at"])
        rows.append(
            (
                "last error",
                Text(f"{leader['last_error']} · {ago} ago · {leader['terms']} terms", style="yellow"),
            )
        )
    return rows


def _slot(slot: dict[str, Any], name: str) -> Text:
    if not slot["exists"]:
        return Text(f"there is no slot {name}", style="yellow")
    if slot["restart_lsn"] is None:
        return Text(f"{name} · {slot['wal_status']}", style="bold red")
    text = Text(name)
    text.append(f" · {slot['wal_status']}", style="" if slot["wal_status"] == "reserved" else "bold yellow")
    text.append(f" · holds {_size(slot['held_wal_bytes'])} of WAL")
    if slot["safe_wal_size"] is not None:
        text.append(f", room for {_size(slot['safe_wal_size'])} more")
    text.append(f" · confirmed {_lsn(slot['confirmed_lsn'])}, restart {_lsn(slot['restart_lsn'])}")
    return text


def _exit_code(found: Survey) -> int:
    if found.errors:
        return EXIT_UNREACHABLE
    return 0 if found.leads else EXIT_NO_LEADER


def _write(found: Survey, json_file: Path | None) -> None:
    if json_file is not None:
        write_json(json_file, found.as_json())


def _lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _span(seconds: float) -> str:
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
