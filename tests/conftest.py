"""Fixtures for all tests; each lives with its concern in ``tests/fixtures``."""

from __future__ import annotations

from tests.fixtures.databases import migrated_dsn, migrated_template, postgres_dsn, redis_url, slot_name
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
    "migrated_dsn",
    "migrated_template",
    "nats_server",
    "nats_url",
    "postgres_dsn",
    "postgres_server",
    "redis_url",
    "server_thread",
    "slot_name",
    "spare_postgres",
    "spare_valkey",
    "valkey_server",
]
