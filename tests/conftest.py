"""Fixtures for all tests; each lives with its concern in ``tests/fixtures``."""

from __future__ import annotations

from tests.fixtures.bridge import bridge_process, bridge_settings, stream_reader
from tests.fixtures.databases import migrated_dsn, migrated_template, postgres_dsn, redis_url, slot_name
from tests.fixtures.realtime import server_process, writer
from tests.fixtures.servers import (
    nats_server,
    nats_url,
    postgres_server,
    server_thread,
    spare_postgres,
    spare_valkey,
    valkey_server,
)

__all__ = [
    "bridge_process",
    "bridge_settings",
    "migrated_dsn",
    "migrated_template",
    "nats_server",
    "nats_url",
    "postgres_dsn",
    "postgres_server",
    "redis_url",
    "server_process",
    "server_thread",
    "slot_name",
    "spare_postgres",
    "spare_valkey",
    "stream_reader",
    "valkey_server",
    "writer",
]
