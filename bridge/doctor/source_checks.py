"""Postgres' settings, the role and the database: can the bridge run, and go on running?"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.doctor.finding import Finding, broken, note, ok, unsafe
from bridge.doctor.source import SourceFacts
from bridge.doctor.words import time_text
from bridge.settings import BridgeSettings

_SHORT_SENDER_TIMEOUT_S = 5
"""The bridge speaks every third of it; a pause of its process must fit in."""


def check_source(facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    """Everything about the server but the slot and the publication."""
    yield from _wal_level(facts)
    yield from _room(facts, settings)
    yield from _sender_timeout(facts)
    yield from _encoding(facts)
    yield from _role(facts)
    yield from _other_bridges(facts, settings)


def _wal_level(facts: SourceFacts) -> Iterator[Finding]:
    level = facts.settings.get("wal_level", "?")
    if level != "logical":
        yield broken(
            "postgres.wal_level",
            f"wal_level is {level}",
            "the WAL has no rows in it that could be decoded",
            "run: ALTER SYSTEM SET wal_level = logical; then restart Postgres",
        )
    else:
        yield ok("postgres.wal_level", "wal_level is logical")
    if facts.is_standby:
        yield unsafe(
            "postgres.primary",
            "this server is a standby",
            "a publication cannot be made here, and a failover or a conflict can invalidate its slots",
            "point ZEPHYR_POSTGRES_DSN at the primary",
        )
    else:
        yield ok("postgres.primary", "this server is the primary")


def _room(facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    slots = int(facts.number("max_replication_slots") or 0)
    if facts.slot is None and facts.slots_used >= slots:
        yield broken(
            "postgres.max_replication_slots",
            f"all {slots} replication slots are in use, and {settings.slot!r} is not among them",
            "the bridge cannot make its slot",
            f"drop one that is not needed, or run: ALTER SYSTEM SET max_replication_slots = {slots + 4}; "
            "then restart Postgres",
        )
    else:
        yield ok("postgres.max_replication_slots", f"{facts.slots_used} of {slots} replication slots in use")
    senders = int(facts.number("max_wal_senders") or 0)
    mend = f"run: ALTER SYSTEM SET max_wal_senders = {senders + 4}; then restart Postgres"
    if facts.senders_used < senders:
        yield ok("postgres.max_wal_senders", f"{facts.senders_used} of {senders} WAL senders in use")
    elif facts.slot is not None and facts.slot.active:
        yield note(
            "postgres.max_wal_senders",
            f"all {senders} WAL senders are in use",
            "a second bridge cannot wait for its turn, and one that was cut off may not come back at once",
            mend,
        )
    else:
        yield broken(
            "postgres.max_wal_senders",
            f"all {senders} WAL senders are in use, none of them by the bridge",
            "the bridge cannot connect",
            mend,
        )


def _sender_timeout(facts: SourceFacts) -> Iterator[Finding]:
    timeout_s = facts.number("wal_sender_timeout")
    check = "postgres.wal_sender_timeout"
    if timeout_s is None:
        return
    mend = "run: ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf()"
    if timeout_s == 0:
        yield note(
            check,
            "wal_sender_timeout is off",
            "a bridge whose machine vanished keeps the slot until TCP gives up, which takes minutes or hours",
            mend,
        )
    elif timeout_s < _SHORT_SENDER_TIMEOUT_S:
        yield note(
            check,
            f"wal_sender_timeout is {time_text(timeout_s)}",
            "a short pause of the bridge or of the network ends its session",
            mend,
        )
    else:
        yield ok(check, f"wal_sender_timeout is {time_text(timeout_s)}")


def _encoding(facts: SourceFacts) -> Iterator[Finding]:
    encoding = facts.settings.get("server_encoding", "?")
    if encoding == "SQL_ASCII":
        yield unsafe(
            "postgres.encoding",
            f"the database {facts.database} has the encoding SQL_ASCII",
            "Postgres stores any bytes as text, and the first that are not UTF-8 stop the bridge",
            "dump it and load it into a database made with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    elif encoding != "UTF8":
        yield note(
            "postgres.encoding",
            f"the database {facts.database} has the encoding {encoding}",
            "every text is converted to UTF-8 on its way, at some cost",
        )
    else:
        yield ok("postgres.encoding", f"the database {facts.database} has the encoding UTF8")


def _role(facts: SourceFacts) -> Iterator[Finding]:
    if not facts.may_replicate:
        yield broken(
            "postgres.replication",
            f"the role {facts.role} may not replicate",
            "it cannot make or read a slot",
            f'run as a superuser: ALTER ROLE "{facts.role}" REPLICATION',
        )
    else:
        yield ok("postgres.replication", f"the role {facts.role} may replicate")


def _other_bridges(facts: SourceFacts, settings: BridgeSettings) -> Iterator[Finding]:
    if not facts.other_bridges:
        yield ok("postgres.bridges", "no other bridge reads from this server")
        return
    others = ", ".join(f"{slot!r} in {database}" for slot, database in facts.other_bridges)
    yield note(
        "postgres.bridges",
        f"other bridges read from this server: slot {others}",
        f"two bridges that write to one stream fence each other off; this one writes to {settings.stream!r}",
        "give each bridge its own ZEPHYR_SLOT and ZEPHYR_STREAM",
    )
