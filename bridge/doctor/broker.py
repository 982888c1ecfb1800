"""What NATS says of itself, its JetStream and the stream, asked over one connection that stores nothing.

The interval at which JetStream syncs to disk is told to the system account alone; with its
credentials it is asked for, without them it stays unknown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
import orjson
from google.protobuf.message import DecodeError
from nats.aio.client import Client as NatsClient

from bridge.doctor.clock import Clock, offset_of
from bridge.doctor.connection import connected
from bridge.errors import BridgeError, Unreachable
from bridge.jetstream import JetStream
from bridge.settings import BridgeSettings
from bridge.stream import read_stream
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import OwnerMark, PositionMark

_CLOCK_ROUNDS = 5
_ASK_TIMEOUT_S = 2
_NO_JETSTREAM = (10039, 10076)
"""Error codes: JetStream is not enabled for the account, or not at all."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a connection is to the broker; None where the broker did not say."""

    name: str
    account: str


@dataclass(frozen=True, slots=True)
class SyncInterval:
    """How often JetStream syncs to disk; ``seconds`` of 0: before each acknowledgement."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """Everything that was read. ``stream`` is STREAM.INFO's answer; None when there is no such stream.

    ``listens_on_loopback``: the server can be reached from its own machine alone.
    ``other_stream`` has the stream's subjects while ``stream`` is None. ``unreadable`` says why
    a mark could not be read.
    """

    version: tuple[int, int, int]
    max_payload: int
    has_jetstream: bool
    listens_on_loopback: bool
    user: User | None
    limits: dict[str, Any]
    stream: dict[str, Any] | None = None
    other_stream: str = ""
    position: PositionMark | None = None
    owner: OwnerMark | None = None
    unreadable: str = ""
    sync: SyncInterval | None = None
    sync_error: str = ""
    clock: Clock | None = None


async def read_broker(settings: BridgeSettings, system_url: str | None) -> BrokerFacts:
    """Reads everything.

    Raises:
        Unreachable: the broker does not answer.
    """
    async with connected(settings.nats_url, settings.publish_timeout_s) as connection:
        jetstream = JetStream(connection, settings.stream, settings.publish_timeout_s)
        version = connection.connected_server_version
        info: dict[str, Any] = connection._server_info  # nats-py has no public name for it
        user, clock = await ask_user(connection)
        facts: dict[str, Any] = {
            "version": (version.major, version.minor, version.patch),
            "max_payload": int(connection.max_payload),
            "listens_on_loopback": _is_loopback(str(info.get("host", ""))),
            "user": user,
            "has_jetstream": bool(info.get("jetstream")),
            "limits": {},
        }
        if facts["has_jetstream"]:
            await _read_jetstream(jetstream, facts)
        if facts.get("stream") is not None:
            clock = clock or await _stream_clock(jetstream)
        facts["clock"] = clock
    if system_url is not None:
        facts |= await _read_sync(system_url, settings.publish_timeout_s)
    return BrokerFacts(**facts)


async def ask_user(connection: NatsClient) -> tuple[User | None, Clock | None]:
    """Who we are, and the broker's clock; both None when we may not ask."""
    user, clocks = None, []
    for _ in range(_CLOCK_ROUNDS):
        asked_s = time.time()
        answer = await ask(connection, "$SYS.REQ.USER.INFO")
        if answer is None:
            return None, None
        data = answer.get("data") or {}
        user = User(str(data.get("user", "")), str(data.get("account", "")))
        clocks.append(offset_of(_seconds(answer["server"]["time"]), asked_s, time.time()))
    return user, min(clocks, key=lambda clock: clock.uncertain_s)


async def ask(connection: NatsClient, subject: str) -> dict[str, Any] | None:
    """A request to the broker itself; None when there is no answer, as when we may not ask."""
    try:
        message = await connection.request(subject, b"", timeout=_ASK_TIMEOUT_S)
    except (TimeoutError, nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return None
    except (nats.errors.Error, OSError) as exc:
        raise Unreachable(f"NATS went away: {exc}") from exc
    return dict(orjson.loads(message.data))


async def _read_jetstream(jetstream: JetStream, facts: dict[str, Any]) -> None:
    # Asked here and not through `api`, for which an account without JetStream is one to try again.
    answer = await ask(jetstream.connection, "$JS.API.INFO")
    if answer is None or (answer.get("error") or {}).get("err_code") in _NO_JETSTREAM:
        facts["has_jetstream"] = False
        return
    facts["limits"] = answer.get("limits") or {}
    facts["stream"] = await read_stream(jetstream)
    if facts["stream"] is None:
        names = (await jetstream.api("STREAM.NAMES", {"subject": fmt.SUBJECTS})).get("streams") or []
        facts["other_stream"] = ", ".join(names)
        return
    position = await jetstream.last(fmt.POSITION_SUBJECT)
    owner = await jetstream.last(fmt.OWNER_SUBJECT)
    try:
        facts["position"] = PositionMark.FromString(position.payload) if position is not None else None
        facts["owner"] = OwnerMark.FromString(owner.payload) if owner is not None else None
    except DecodeError:
        facts["unreadable"] = f"the last mark on {fmt.POSITION_SUBJECT} or {fmt.OWNER_SUBJECT} is no mark"


async def _stream_clock(jetstream: JetStream) -> Clock | None:
    asked_s = time.time()
    info = await read_stream(jetstream)
    if info is None or "ts" not in info:
        return None
    return offset_of(_seconds(info["ts"]), asked_s, time.time())


async def _read_sync(system_url: str, timeout_s: float) -> dict[str, Any]:
    try:
        async with connected(system_url, timeout_s) as connection:
            answer = await ask(connection, "$SYS.REQ.SERVER.PING.JSZ")
    except BridgeError as exc:
        return {"sync_error": exc.message}
    config = ((answer or {}).get("data") or {}).get("config")
    if config is None:
        return {"sync_error": "these credentials are not of the system account"}
    seconds = 0.0 if config.get("sync_always") else config.get("sync_interval", 0) / 1e9
    return {"sync": SyncInterval(seconds)}


def _seconds(stamp: str) -> float:
    """RFC 3339 with up to nine digits of a second, of which Python reads six."""
    head, _, fraction = stamp.rstrip("Z").partition(".")
    whole = datetime.fromisoformat(f"{head}+00:00").timestamp()
    return whole + (float(f"0.{fraction}") if fraction else 0.0)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("localhost", "::1")
