"""What Postgres says of itself, as far as the checks ask: read by statements, in a read-only session.

Views differ from version to version, so the slot is taken as JSON, with what it has. What the
role may not see is missing, not an error.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bridge.catalog import Catalog, read_catalog
from bridge.doctor.clock import Clock, offset_of
from bridge.mapping import Mapping
from bridge.postgres import Source, translate
from bridge.settings import BridgeSettings
from bridge.slot import open_replication

_CONNECT_TIMEOUT_S = 10
_CLOCK_ROUNDS = 5

# Sizes in bytes, times in seconds, whatever unit the setting has; -1 stays -1.
SETTINGS = """
SELECT name, CASE vartype WHEN 'integer' THEN
    (setting::numeric * CASE WHEN setting LIKE '-%%' THEN 1 ELSE
        CASE unit WHEN 'ms' THEN 0.001 WHEN 'min' THEN 60 WHEN 'kB' THEN 1024 WHEN 'MB' THEN 1048576 ELSE 1 END
    END)::text ELSE setting END AS value
FROM pg_settings WHERE name = ANY (%(names)s)
"""
_NAMES = (
    "wal_level",
    "max_slot_wal_keep_size",
    "max_replication_slots",
    "max_wal_senders",
    "wal_sender_timeout",
    "idle_replication_slot_timeout",
    "server_encoding",
    "server_version",
)

# One row: who we are, and where the WAL is.
SELF = """
SELECT current_user AS role, current_database() AS database, r.rolreplication OR r.rolsuper AS may_replicate,
    has_database_privilege(current_database(), 'CREATE') AS may_create,
    r.rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
    pg_is_in_recovery() AS is_standby,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text AS wal_lsn,
    (SELECT count(*) FROM pg_replication_slots) AS slots_used,
    (SELECT count(*) FROM pg_stat_replication) AS senders_used
FROM pg_roles r WHERE r.rolname = current_user
"""

# One row when the slot exists. `held` is the WAL that Postgres keeps for it, in bytes.
SLOT = """
SELECT to_jsonb(s) AS slot, age(s.catalog_xmin) AS catalog_age,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - s.restart_lsn)::bigint
        AS held
FROM pg_replication_slots s WHERE s.slot_name = %(slot)s
"""

# One row when the publication exists. An age counts transactions since it was last written.
PUBLICATION = """
SELECT p.pubviaroot AS via_root, age(p.xmin) AS age,
    pg_has_role(p.pubowner, 'USAGE') AS is_ours,
    (SELECT array_agg(t.schemaname || '.' || t.tablename ORDER BY 1) FROM pg_publication_tables t
        WHERE t.pubname = p.pubname) AS tables
FROM pg_publication p WHERE p.pubname = %(publication)s
"""

# The mapped tables that the role does not own.
FOREIGN = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY (%(names)s) AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""

# Transactions that write, oldest first: while one is open, the slot's WAL from its start is kept.
# Those of other roles are only seen by a role that sees all.
TRANSACTIONS = """
SELECT pid, coalesce(usename, '?') AS role, coalesce(state, '?') AS state,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
ORDER BY xact_start LIMIT 5
"""
PREPARED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age_s FROM pg_prepared_xacts
ORDER BY prepared LIMIT 5
"""

# The WAL's growth, as an average since the statistics were reset.
WAL_RATE = """
SELECT (wal_bytes / greatest(extract(epoch FROM clock_timestamp() - stats_reset), 1))::float8 AS bytes_per_s
FROM pg_stat_wal
"""

# Slots that other bridges read now.
OTHERS = """
SELECT s.slot_name::text AS slot, s.database::text AS database FROM pg_replication_slots s
JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE a.application_name = 'zephyr-bridge' AND s.slot_name <> %(slot)s ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction that writes; ``name`` says how to end it."""

    name: str
    age_s: float
    end: str


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """``age`` is in transactions; ``is_ours``: the role may change it."""

    via_root: bool
    age: int
    is_ours: bool
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The slot. ``held_bytes`` is None when it keeps no WAL any more; ``catalog_age`` in transactions."""

    plugin: str
    database: str
    active: bool
    wal_status: str
    confirmed_lsn: str
    held_bytes: int | None
    safe_bytes: int | None
    catalog_age: int | None
    invalidation_reason: str = ""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Everything that was read. ``settings`` has sizes in bytes and times in seconds, as text."""

    settings: dict[str, str]
    role: str
    database: str
    may_replicate: bool
    may_create: bool
    sees_all: bool
    is_standby: bool
    slots_used: int
    senders_used: int
    wal_bytes_per_s: float
    catalog: Catalog
    slot: SlotFacts | None
    publication: PublicationFacts | None
    foreign_tables: tuple[str, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    other_bridges: tuple[tuple[str, str], ...] = ()
    clock: Clock | None = field(default=None)

    def number(self, name: str) -> float | None:
        """A setting as a number; None when this server does not have it."""
        text = self.settings.get(name)
        return float(text) if text is not None else None


async def read_source(settings: BridgeSettings, mapping: Mapping) -> SourceFacts:
    """Reads everything in one read-only session.

    Raises:
        Unreachable, SourceUnfit, SettingInvalid: see ``bridge.postgres.translate``.
    """
    try:
        async with await AsyncConnection.connect(
            settings.postgres_dsn,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="zephyr-doctor",
            # Texts of a database in SQL_ASCII would be bytes otherwise.
            client_encoding="UTF8",
        ) as connection:
            await connection.execute("SET default_transaction_read_only = on")
            return await _read(connection, settings, mapping)
    except psycopg.Error as exc:
        raise translate(exc) from exc


async def read_identity(settings: BridgeSettings) -> Source:
    """What the server calls itself, over a replication session as the bridge opens it.

    Raises:
        Unreachable, SourceUnfit: among others, the role may not replicate.
    """
    replication = await open_replication(settings.postgres_dsn)
    try:
        return await replication.identify()
    finally:
        await replication.close()


async def _read(connection: AsyncConnection[Any], settings: BridgeSettings, mapping: Mapping) -> SourceFacts:
    names = list(mapping.tables)
    async with connection.cursor(row_factory=dict_row) as cursor:

        async def rows(statement: str, **values: object) -> list[dict[str, Any]]:
            await cursor.execute(statement.encode(), values)
            return await cursor.fetchall()

        me = (await rows(SELF))[0]
        found = {row["name"]: row["value"] for row in await rows(SETTINGS, names=list(_NAMES))}
        slots = await rows(SLOT, slot=settings.slot)
        publications = await rows(PUBLICATION, publication=settings.publication)
        foreign = await rows(FOREIGN, names=names)
        transactions = await rows(TRANSACTIONS)
        prepared = await rows(PREPARED)
        rate = await rows(WAL_RATE)
        others = await rows(OTHERS, slot=settings.slot)
    catalog = await read_catalog(connection, names, settings.publication)
    return SourceFacts(
        settings=found,
        role=me["role"],
        database=me["database"],
        may_replicate=me["may_replicate"],
        may_create=me["may_create"],
        sees_all=me["sees_all"],
        is_standby=me["is_standby"],
        slots_used=me["slots_used"],
        senders_used=me["senders_used"],
        wal_bytes_per_s=(rate[0]["bytes_per_s"] or 0.0) if rate else 0.0,
        catalog=catalog,
        slot=_slot(slots[0]) if slots else None,
        publication=_publication(publications[0]) if publications else None,
        foreign_tables=tuple(row["name"] for row in foreign),
        transactions=tuple(_transactions(transactions, prepared)),
        other_bridges=tuple((row["slot"], row["database"]) for row in others),
        clock=await _clock(connection),
    )


def _slot(row: dict[str, Any]) -> SlotFacts:
    slot = row["slot"]
    return SlotFacts(
        plugin=slot["plugin"] or "",
        database=slot["database"] or "",
        active=slot["active"],
        wal_status=slot["wal_status"] or "",
        confirmed_lsn=slot["confirmed_flush_lsn"] or "0/0",
        held_bytes=row["held"],
        safe_bytes=slot["safe_wal_size"],
        catalog_age=row["catalog_age"],
        invalidation_reason=slot.get("invalidation_reason") or "",
    )


def _publication(row: dict[str, Any]) -> PublicationFacts:
    return PublicationFacts(row["via_root"], row["age"], row["is_ours"], tuple(row["tables"] or ()))


def _transactions(open_now: list[dict[str, Any]], prepared: list[dict[str, Any]]) -> list[Transaction]:
    return [
        Transaction(
            f"process {row['pid']} of {row['role']} ({row['state']})",
            row["age_s"],
            f"SELECT pg_terminate_backend({row['pid']})",
        )
        for row in open_now
    ] + [
        Transaction(
            f"prepared transaction {row['gid']!r}",
            row["age_s"],
            "COMMIT PREPARED or ROLLBACK PREPARED '" + row["gid"].replace("'", "''") + "'",
        )
        for row in prepared
    ]


async def _clock(connection: AsyncConnection[Any]) -> Clock:
    clocks = []
    for _ in range(_CLOCK_ROUNDS):
        asked_s = time.time()
        cursor = await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        row = await cursor.fetchone()
        assert row is not None
        clocks.append(offset_of(float(row[0]), asked_s, time.time()))
    return min(clocks, key=lambda clock: clock.uncertain_s)
