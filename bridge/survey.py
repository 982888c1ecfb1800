"""Who leads and how far it is, found out from outside: Postgres, the stream, and the bridges that answer.

Each of the three is asked by itself, and what one of them cannot say is left empty with its
reason, so that a person learns as much as can be known while servers are away. Nothing is
written and nothing is locked.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import orjson
import psycopg
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from psycopg.rows import DictRow, dict_row

from bridge.errors import BridgeError, Unreachable
from bridge.jetstream import JetStream, connect_nats
from bridge.postgres import translate
from bridge.settings import BridgeSettings
from bridge.status import LEADER, status_subject
from bridge.stream import read_stream
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import OwnerMark, PositionMark

_ANSWERS_S = 0.5
_TIMEOUT_S = 5
_MOST_ANSWERS = 64

_SLOT = """
WITH here AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS wal_lsn
)
SELECT (here.wal_lsn - '0/0')::bigint AS wal_lsn, extract(epoch FROM clock_timestamp())::float8 AS now_s,
    s.slot_name IS NOT NULL AS exists, s.wal_status, s.safe_wal_size, s.active_pid,
    (s.confirmed_flush_lsn - '0/0')::bigint AS confirmed_lsn, (s.restart_lsn - '0/0')::bigint AS restart_lsn,
    (here.wal_lsn - s.restart_lsn)::bigint AS held_wal_bytes,
    (here.wal_lsn - s.confirmed_flush_lsn)::bigint AS unconfirmed_bytes
FROM here LEFT JOIN pg_replication_slots s ON s.slot_name = %(slot)s
"""
# The key of an advisory lock of 64 bits stands in two halves.
_SESSIONS = """
SELECT a.pid, host(a.client_addr) AS address, extract(epoch FROM a.backend_start)::float8 AS since,
    coalesce(l.granted, false) AS holds_lock, r.state, extract(epoch FROM r.reply_time)::float8 AS reply_time
FROM pg_stat_activity a
LEFT JOIN pg_stat_replication r ON r.pid = a.pid
LEFT JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 1
    AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('zephyr.bridge.' || %(slot)s, 0)
WHERE a.application_name = 'zephyr-bridge' AND a.datname = current_database()
    AND (l.granted OR strpos(a.query, 'pg_try_advisory_lock(hashtextextended(''zephyr.bridge.' || %(slot)s || '''') > 0)
ORDER BY holds_lock DESC, a.backend_start
"""


@dataclass(slots=True)
class Survey:
    """What was found out. ``errors`` says of whom nothing could be, and why."""

    slot: dict[str, Any] | None = None
    sessions: list[dict[str, Any]] = field(default_factory=list)
    stream: dict[str, Any] | None = None
    bridges: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def leads(self) -> bool:
        """Whether a leader streams: Postgres says so, or, where it cannot be asked, the leader itself."""
        if any(each["holds_lock"] and each["state"] == "streaming" for each in self.sessions):
            return True
        return "postgres" in self.errors and self.leader is not None

    @property
    def leader(self) -> dict[str, Any] | None:
        """The answer of the bridge that leads."""
        return next((each for each in self.bridges if each.get("role") == LEADER), None)

    @property
    def lag_bytes(self) -> int | None:
        """How much WAL stands after the last mark; None when it cannot be known."""
        if self.slot is None or self.stream is None or not self.stream.get("position"):
            return None
        return max(0, int(self.slot["wal_lsn"]) - int(self.stream["position"]["wal_lsn"]))

    @property
    def lag_s(self) -> float | None:
        """How old the source was at the last mark, by the server's clock; 0 at the end of the WAL."""
        lag_bytes = self.lag_bytes
        if lag_bytes is None or self.slot is None or self.stream is None:
            return None
        wal_time = self.stream["position"]["wal_time"]
        if lag_bytes and not wal_time:
            return None
        return max(0.0, self.slot["now_s"] - wal_time) if lag_bytes else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "leads": self.leads,
            "lag_bytes": self.lag_bytes,
            "lag_s": self.lag_s,
            "slot": self.slot,
            "sessions": self.sessions,
            "stream": self.stream,
            "bridges": self.bridges,
            "errors": self.errors,
        }


async def survey(settings: BridgeSettings) -> Survey:
    """Asks all of them; an unreachable server is in ``errors``."""
    found = Survey()
    await asyncio.gather(_ask_postgres(settings, found), _ask_nats(settings, found))
    return found


async def _ask_postgres(settings: BridgeSettings, found: Survey) -> None:
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            await psycopg.AsyncConnection[DictRow].connect(
                settings.postgres_dsn,
                autocommit=True,
                connect_timeout=_TIMEOUT_S,
                application_name="zephyr-bridge-status",
                row_factory=dict_row,
            ) as connection,
        ):
            slot = await (await connection.execute(_SLOT, {"slot": settings.slot})).fetchone()
            found.sessions = await (await connection.execute(_SESSIONS, {"slot": settings.slot})).fetchall()
            found.slot = slot
    except psycopg.Error as exc:
        found.errors["postgres"] = translate(exc).message
    except TimeoutError:
        found.errors["postgres"] = f"Postgres gave no answer within {_TIMEOUT_S:g} s"


async def _ask_nats(settings: BridgeSettings, found: Survey) -> None:
    try:
        async with AsyncExitStack() as stack:
            connection = await connect_nats(settings.nats_url, _TIMEOUT_S)
            stack.push_async_callback(connection.close)
            found.bridges, found.stream = await asyncio.gather(
                _ask_bridges(connection, settings.stream),
                _ask_stream(JetStream(connection, settings.stream, _TIMEOUT_S)),
            )
    except BridgeError as exc:
        found.errors["nats"] = exc.message


async def _ask_bridges(connection: NatsClient, stream: str) -> list[dict[str, Any]]:
    """The answers that come within half a second: how many there will be, nobody knows."""
    inbox = connection.new_inbox()
    answers: list[dict[str, Any]] = []
    is_all = asyncio.Event()

    async def take(message: Msg) -> None:
        if (message.headers or {}).get("Status") != "503":  # else nobody listens
            answers.append(orjson.loads(message.data))
            if len(answers) < _MOST_ANSWERS:
                return
        is_all.set()

    try:
        await connection.subscribe(inbox, cb=take, max_msgs=_MOST_ANSWERS)
        await connection.publish(status_subject(stream), b"", reply=inbox)
        async with asyncio.timeout(_ANSWERS_S):
            await is_all.wait()
    except TimeoutError:
        pass
    except (nats.errors.Error, OSError) as exc:
        raise Unreachable(f"NATS went away: {exc}") from exc
    return sorted(answers, key=lambda each: (each["role"] != LEADER, each["owner"]))


async def _ask_stream(jetstream: JetStream) -> dict[str, Any] | None:
    info = await read_stream(jetstream)
    if info is None:
        return None
    owner, position = OwnerMark(), PositionMark()
    has_owner = await _read(jetstream, fmt.OWNER_SUBJECT, owner)
    has_position = await _read(jetstream, fmt.POSITION_SUBJECT, position)
    return {
        "name": jetstream.stream,
        "epoch": (info["config"].get("metadata") or {}).get(fmt.EPOCH_KEY),
        "first_sequence": info["state"]["first_seq"],
        "last_sequence": info["state"]["last_seq"],
        "messages": info["state"]["messages"],
        "bytes": info["state"]["bytes"],
        "owner": {"owner": owner.owner, "term": owner.term, "started_at": owner.started_at / 1e6}
        if has_owner
        else None,
        "position": {
            "commit_lsn": position.commit_lsn,
            "index": position.index,
            "complete": position.complete,
            "wal_lsn": position.wal_lsn,
            "wal_time": position.wal_time / 1e6,
        }
        if has_position
        else None,
    }


async def _read(jetstream: JetStream, subject: str, mark: Message) -> bool:
    stored = await jetstream.last(subject)
    if stored is None:
        return False
    try:
        mark.ParseFromString(stored.payload)
    except DecodeError:
        return False
    return True
