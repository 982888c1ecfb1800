"""The source as a term finds it once the lock is its own: who it is, its slot, and the mapping held against it.

The publication is made or brought to the mapping here, before the slot. Nothing of the stream
is known yet, and nothing of it is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from bridge.errors import MappingMismatch
from bridge.fit import FittedMapping, check_fit
from bridge.mapping import Mapping
from bridge.postgres import SlotState, Source, translate
from bridge.publication import ensure_publication
from bridge.settings import BridgeSettings
from bridge.slot import ReplicationConnection


@dataclass(frozen=True, slots=True)
class Origin:
    """``replication`` holds the lock; ``slot`` is None where there is none yet."""

    replication: ReplicationConnection
    source: Source
    slot: SlotState | None
    fitted: FittedMapping


async def find_origin(
    replication: ReplicationConnection,
    settings: BridgeSettings,
    mapping: Mapping,
    former: FittedMapping | None,
) -> Origin:
    """Looks at the source and makes it ready. ``former`` is the fit of the term before, if there was one.

    Raises:
        BridgeError: see ``bridge.errors``.
    """
    source = await replication.identify()
    slot = await replication.slot_state(settings.slot)
    try:
        fitted = await _fit(settings, mapping, former, creates=slot is None)
    except psycopg.OperationalError as exc:
        raise translate(exc) from exc
    return Origin(replication, source, slot, fitted)


async def _fit(
    settings: BridgeSettings, mapping: Mapping, former: FittedMapping | None, creates: bool
) -> FittedMapping:
    async with await psycopg.AsyncConnection.connect(
        settings.postgres_dsn,
        autocommit=True,
        connect_timeout=10,
        application_name="zephyr-bridge-setup",
    ) as connection:
        try:
            fitted = await check_fit(connection, mapping)
        except MappingMismatch:
            if former is None or settings.on_schema_change == "pause":
                raise
            # Rows of the altered table go to the dead letters, by what was checked before.
            return former
        await ensure_publication(connection, settings.publication, mapping.tables, create=creates)
        # Now that it is there: it may filter rows or columns.
        await check_fit(connection, mapping, settings.publication)
        return fitted
