"""NATS, its JetStream and the stream: does what was acknowledged stay, and do the marks?"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.doctor.broker import BrokerFacts
from bridge.doctor.finding import Finding, broken, note, ok, unsafe
from bridge.doctor.words import size_text, time_text
from bridge.errors import StreamUnfit
from bridge.settings import BridgeSettings
from bridge.stream import fit_stream

DEFAULT_SYNC_S = 120
"""JetStream's sync_interval where the configuration has none."""
_HEADER_ROOM_BYTES = 64 * 1024
_FENCE_VERSION = (2, 12)
_RUNS_VERSION = (2, 14)
_HOUR_S = 3600
_DAY_S = 86400
_FULL = 0.9
_PUBLISHED_AT_ONCE = 50_000
"""So many messages a broker takes in about the time in which the bridge looks for them."""


def check_broker(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    """Everything but the marks, and who may publish."""
    yield from _version(facts)
    yield from _payload(facts, settings)
    if not facts.has_jetstream:
        yield broken(
            "nats.jetstream",
            "the server has no JetStream for this account",
            "there is nowhere to store events",
            "put jetstream { store_dir: … } into its configuration, and jetstream: enabled into the account",
        )
        return
    yield ok("nats.jetstream", "JetStream is on")
    yield from _durability(facts, settings)
    if facts.stream is None:
        yield from _no_stream(facts, settings)
        return
    yield from _fit(facts, settings)
    yield from _limits(facts, settings)


def _version(facts: BrokerFacts) -> Iterator[Finding]:
    text = ".".join(str(part) for part in facts.version)
    if facts.version[:2] < _FENCE_VERSION:
        yield broken(
            "nats.version",
            f"NATS is of version {text}",
            "before 2.12 it knows no fence across subjects, so that a former bridge could still write",
            "install nats-server 2.14 or newer",
        )
    elif facts.version[:2] < _RUNS_VERSION:
        yield note(
            "nats.version",
            f"NATS is of version {text}",
            "before 2.14 it takes no runs, and every event costs a round trip",
            "install nats-server 2.14 or newer",
        )
    else:
        yield ok("nats.version", f"NATS is of version {text}")


def _payload(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    wanted = settings.max_event_bytes + _HEADER_ROOM_BYTES
    found = f"max_payload is {size_text(facts.max_payload)}, events may have {size_text(settings.max_event_bytes)}"
    if facts.max_payload < wanted:
        megabytes = -(-wanted // 1_000_000)
        yield note(
            "nats.max_payload",
            found,
            "a row whose event is larger than the broker takes stops the bridge",
            f"put max_payload: {megabytes}MB into the broker's configuration, or lower ZEPHYR_BRIDGE_MAX_EVENT_BYTES",
        )
    else:
        yield ok("nats.max_payload", found)


def _durability(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    check = "nats.sync_interval"
    config = (facts.stream or {}).get("config") or {}
    replicas = int(config.get("num_replicas") or settings.stream_replicas)
    hold_back = f"ZEPHYR_BRIDGE_HOLD_BACK_S is {settings.hold_back_s:g}"
    if facts.sync_error:
        yield note(
            "nats.system_account",
            f"the system account cannot be asked: {facts.sync_error}",
            "it alone is told the sync_interval",
            "correct --nats-system-url or ZEPHYR_DOCTOR_NATS_SYSTEM_URL",
        )
    if replicas >= 3:
        yield ok(check, f"the stream has {replicas} replicas, so no single machine's disk decides")
        return
    sync = facts.sync
    sync_s = sync.seconds if sync is not None else DEFAULT_SYNC_S
    if sync is not None and sync_s == 0:
        yield ok(check, "JetStream syncs before it acknowledges")
        return
    told = f"sync_interval is {time_text(sync_s)}"
    if sync is None:
        told = f"the sync_interval, which only the system account is told, is taken to be its default, {time_text(sync_s)}"
    if settings.hold_back_s < sync_s:
        yield unsafe(
            check,
            f"{hold_back}, and {told}",
            "events that the broker acknowledged and has not synced are lost with its machine,"
            " when Postgres has already forgotten them",
            f"set ZEPHYR_BRIDGE_HOLD_BACK_S={sync_s:g} or more, or sync_interval: always in the broker's configuration"
            if sync is not None
            else "if it is shorter, show it with --nats-system-url; else set ZEPHYR_BRIDGE_HOLD_BACK_S="
            f"{sync_s:g} or more, or sync_interval: always",
        )
    else:
        yield ok(check, f"{hold_back}, and {told}")


def _no_stream(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    if facts.other_stream:
        yield broken(
            "nats.stream",
            f"there is no stream {settings.stream!r}, and {facts.other_stream!r} has its subjects",
            "no two streams of an account can have the subjects zephyr.>",
            "name that one with ZEPHYR_STREAM, or free the subjects zephyr.>",
        )
    else:
        yield ok("nats.stream", f"there is no stream {settings.stream!r} yet; the bridge makes it")


def _fit(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    assert facts.stream is not None
    config = facts.stream["config"]
    try:
        state = fit_stream(facts.stream, settings)
    except StreamUnfit as exc:
        yield broken("nats.stream", exc.message, "the bridge does not start on it", exc.mend)
        return
    yield ok(
        "nats.stream",
        f"the stream {settings.stream!r} stores on {config['storage']}, drops the oldest when full, and has"
        f" {config['num_replicas']} replica{'s' if config['num_replicas'] != 1 else ''}",
    )
    if facts.version[:2] >= _RUNS_VERSION and not state.allows_runs:
        yield note(
            "nats.runs",
            f"the stream {settings.stream!r} takes no runs",
            "it was made under an older broker, and every event costs a round trip",
            f"run: nats stream edit {settings.stream} --allow-batch",
        )


def _limits(facts: BrokerFacts, settings: BridgeSettings) -> Iterator[Finding]:
    assert facts.stream is not None
    config, state = facts.stream["config"], facts.stream["state"]
    max_age_s = int(config.get("max_age") or 0) / 1e9
    max_bytes, max_msgs = (max(0, int(config.get(key) or 0)) for key in ("max_bytes", "max_msgs"))
    check = "nats.limits"
    limits = [f"max_age {time_text(max_age_s)}"] if max_age_s else []
    limits += [f"max_bytes {size_text(max_bytes)}"] if max_bytes else []
    limits += [f"max_msgs {max_msgs}"] if max_msgs else []
    fine = True
    if max_age_s and max_age_s < _DAY_S:
        fine = False
        # A mark is at most a quarter of the limit old while the bridge runs.
        lasts_s = max_age_s * 3 / 4
        judge = unsafe if max_age_s < max(_HOUR_S, 4 * settings.hold_back_s) else note
        yield judge(
            check,
            f"the stream keeps its messages for {time_text(max_age_s)}",
            f"a bridge that is away for {time_text(lasts_s)} finds its marks evicted and must begin a new epoch;"
            " a client that is away as long starts anew",
            f"run: nats stream edit {settings.stream} --max-age=7d, and set ZEPHYR_STREAM_MAX_AGE_S=604800",
        )
    if max_bytes and max_bytes < 4 * settings.max_event_bytes:
        fine = False
        yield unsafe(
            check,
            f"the stream keeps {size_text(max_bytes)}, and one event may have {size_text(settings.max_event_bytes)}",
            "four large events evict the bridge's marks, and it must begin a new epoch",
            "raise ZEPHYR_STREAM_MAX_BYTES and the stream's max_bytes, or lower ZEPHYR_BRIDGE_MAX_EVENT_BYTES",
        )
    if max_msgs and max_msgs < 1000:
        fine = False
        yield unsafe(
            check,
            f"the stream keeps {max_msgs} messages",
            "whoever else publishes to it evicts the bridge's marks, and a client that is away for a moment"
            " starts anew",
            "raise ZEPHYR_STREAM_MAX_MSGS and the stream's max_msgs",
        )
    elif max_msgs and max_msgs < _PUBLISHED_AT_ONCE:
        fine = False
        yield note(
            check,
            f"the stream keeps {max_msgs} messages",
            "who publishes so many within a moment evicts the bridge's marks, and it must begin a new epoch",
            "raise ZEPHYR_STREAM_MAX_MSGS and the stream's max_msgs",
        )
    if not limits:
        fine = False
        yield note(
            check,
            f"the stream has no limits, and holds {size_text(state['bytes'])}",
            "it grows until the broker's disk or account is full, and then takes no events",
            "watch the broker's disk; limits are ZEPHYR_STREAM_MAX_AGE_S and _MAX_BYTES, and nats stream edit",
        )
    if fine:
        yield ok(check, f"the stream's limits are {', '.join(limits)}")
    yield from _account(facts, int(state["bytes"]), max_bytes)


def _account(facts: BrokerFacts, held_bytes: int, max_bytes: int) -> Iterator[Finding]:
    limit = int(facts.limits.get("max_storage") or -1)
    if limit < 0 or (max_bytes and max_bytes <= limit):
        return
    judge = unsafe if held_bytes > _FULL * limit else note
    yield judge(
        "nats.account",
        f"the account may store {size_text(limit)}, and the stream holds {size_text(held_bytes)}",
        "when that is full the broker refuses events, and Postgres keeps its WAL",
        "give the stream a max_bytes below it, or raise the account's max_storage",
    )
