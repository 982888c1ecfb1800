"""The slot and the WAL that it keeps: is it there, how long does it last, and what holds it back?"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.doctor.finding import Finding, broken, note, ok, unsafe
from bridge.doctor.source import SlotFacts, SourceFacts
from bridge.doctor.words import size_text, time_text
from bridge.settings import BridgeSettings

LONG_TRANSACTION_S = 300
MUCH_WAL_BYTES = 1024**3
"""What is worth a word where no limit says how much is too much."""
_SHORTEST_OUTAGE_S = 600
"""An outage of NATS or of the bridge that anybody has once."""
_DAY_S = 86400
_LOST_WHY = "changes that are not yet in the stream are gone with it"
_NEW_EPOCH = "zephyr bridge new-epoch"


def check_slot(facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    """Everything about the slot but its place in the stream, which is ``epoch_checks``'."""
    slot = facts.slot
    if slot is None:
        yield ok("postgres.slot", f"there is no slot {settings.slot!r} yet; the bridge makes it")
    else:
        yield from _state(slot, facts, settings)
    yield from _keep_size(facts, settings)
    yield from _idle_timeout(facts)
    yield from _transactions(facts)


def _state(slot: SlotFacts, facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    name = settings.slot
    if slot.plugin != "pgoutput" or slot.database != facts.database:
        yield broken(
            "postgres.slot",
            f"the slot {name!r} is of plugin {slot.plugin or 'none'} in database {slot.database or 'none'}",
            f"the bridge reads pgoutput in {facts.database}",
            "name another with ZEPHYR_SLOT, or drop it if nobody needs it: "
            f"SELECT pg_drop_replication_slot('{name}')",
        )
        return
    if slot.wal_status == "lost" or slot.invalidation_reason:
        reason = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
        yield broken(
            "postgres.slot",
            f"Postgres invalidated the slot {name!r}{reason}",
            _LOST_WHY,
            f"remove the cause, then run: {_NEW_EPOCH}",
        )
        return
    held = size_text(slot.held_bytes or 0)
    if slot.wal_status == "unreserved":
        yield unsafe(
            "postgres.slot",
            f"the slot {name!r} holds {held} of WAL, more than max_slot_wal_keep_size: "
            "the next checkpoint may invalidate it",
            _LOST_WHY,
            "run: ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(); then start the bridge",
        )
    elif not slot.active:
        judge = unsafe if (slot.held_bytes or 0) >= MUCH_WAL_BYTES else note
        yield judge(
            "postgres.slot",
            f"nobody reads the slot {name!r}, and it holds {held} of WAL",
            "the WAL grows until the bridge runs again, the disk is full or the slot is invalidated",
            f"run: zephyr bridge run; or, to give the stream up: {_NEW_EPOCH}",
        )
    elif (slot.held_bytes or 0) >= MUCH_WAL_BYTES:
        yield note(
            "postgres.slot",
            f"the slot {name!r} is being read, and holds {held} of WAL",
            "the bridge is behind, or something old holds it back",
            "see the bridge's log, and end transactions that have been open for long",
        )
    else:
        yield ok("postgres.slot", f"the slot {name!r} is being read, and holds {held} of WAL")


def _keep_size(facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    check = "postgres.max_slot_wal_keep_size"
    keep = facts.number("max_slot_wal_keep_size")
    if keep is None:
        return
    if keep < 0:
        yield note(
            check,
            "max_slot_wal_keep_size is -1: no limit",
            "while the bridge or NATS is away the WAL grows until the disk is full, and then Postgres stops",
            "watch the disk; or set a limit, above what an outage writes: "
            "ALTER SYSTEM SET max_slot_wal_keep_size = '…GB'; SELECT pg_reload_conf()",
        )
        return
    held = (facts.slot.held_bytes or 0) if facts.slot is not None else 0
    rate = facts.wal_bytes_per_s
    left = max(0.0, keep - held)
    lasts_s = left / rate if rate > 0 else float("inf")
    found = f"max_slot_wal_keep_size is {size_text(keep)}, and the slot holds {size_text(held)}"
    if rate >= 1:
        found += f"; the average {size_text(rate)} a second fills the rest in {time_text(lasts_s)}"
    # The hold-back alone keeps the WAL of that time; checkpoints and segments round it up.
    wanted_s = max(_SHORTEST_OUTAGE_S, 2 * settings.hold_back_s)
    if held > keep * 0.8 or lasts_s < wanted_s:
        wanted = max(2 * held, 4 * rate * wanted_s, 2 * keep)
        yield unsafe(
            check,
            found,
            f"a slot that is over the limit is invalidated, and {_LOST_WHY}; "
            f"wanted is room for {time_text(wanted_s)} at least",
            f"run: ALTER SYSTEM SET max_slot_wal_keep_size = '{_in_gigabytes(wanted)}GB'; "
            "SELECT pg_reload_conf()",
        )
    else:
        yield ok(check, found)


def _idle_timeout(facts: SourceFacts) -> Iterator[Finding]:
    check = "postgres.idle_replication_slot_timeout"
    timeout_s = facts.number("idle_replication_slot_timeout")
    if timeout_s is None:
        return
    if timeout_s == 0:
        yield ok(check, "idle_replication_slot_timeout is off")
        return
    judge = unsafe if timeout_s < _DAY_S else note
    yield judge(
        check,
        f"idle_replication_slot_timeout is {time_text(timeout_s)}",
        f"a bridge that is away for longer loses its slot, and {_LOST_WHY}",
        "run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
    )


def _transactions(facts: SourceFacts) -> Iterator[Finding]:
    check = "postgres.transactions"
    long = [each for each in facts.transactions if each.age_s >= LONG_TRANSACTION_S]
    for transaction in long:
        yield note(
            check,
            f"{transaction.name} has been writing for {time_text(transaction.age_s)}",
            "the slot keeps the WAL from its start on, and nothing of it is in the stream until it commits",
            f"end it, if it is forgotten: {transaction.end}",
        )
    if long:
        return
    if facts.sees_all:
        yield ok(check, "no transaction has been writing for long")
    else:
        yield ok(
            check, f"no transaction of {facts.role} has been writing for long; those of others it cannot see"
        )


def _in_gigabytes(size_bytes: float) -> int:
    return max(1, -int(-size_bytes // 1024**3))
