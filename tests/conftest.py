"""Fixtures for all tests; each lives with its concern in ``tests/fixtures``."""

from __future__ import annotations

import os

# Processes that tests start use the compiled modules when these are built. The tests' own process has
# plain Python, unless it is asked for the others, which must come before they are imported.
if os.environ.get("ZEPHYR_ACCELERATOR") == "require":
    from zephyr.accelerator.finder import enable

    enable()

import tests.fixtures.examples  # noqa: F401  # the profile of property tests
from tests.fixtures.bridge import bridge_settings
from tests.fixtures.bridge_process import bridge_process
from tests.fixtures.cache_kit import cache_kit
from tests.fixtures.databases import migrated_dsn, migrated_template, postgres_dsn, redis_url, slot_name
from tests.fixtures.format_kit import format_kit
from tests.fixtures.read_kit import own_postgres, own_valkey, read_kit
from tests.fixtures.realtime_server import server_process
from tests.fixtures.repo import repo
from tests.fixtures.servers import (
    copy_cluster,
    nats_server,
    nats_url,
    postgres_server,
    server_thread,
    spare_postgres,
    spare_valkey,
    valkey_server,
)
from tests.fixtures.snapshot_kit import snapshot_kit
from tests.fixtures.stream_reader import stream_reader
from tests.fixtures.stream_writer import writer
from tests.fixtures.workers import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler

__all__ = [
    "bridge_process",
    "bridge_settings",
    "cache_kit",
    "copy_cluster",
    "format_kit",
    "migrated_dsn",
    "migrated_template",
    "nats_server",
    "nats_url",
    "own_postgres",
    "own_valkey",
    "postgres_dsn",
    "postgres_server",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
    "read_kit",
    "redis_url",
    "repo",
    "server_process",
    "server_thread",
    "slot_name",
    "snapshot_kit",
    "spare_postgres",
    "spare_valkey",
    "stream_reader",
    "valkey_server",
    "writer",
]
