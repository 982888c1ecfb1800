"""Servers as plain values, set up as they should be; a test takes them with one thing changed."""

from __future__ import annotations

from typing import Any

from bridge.catalog import Catalog, Publication
from bridge.doctor.broker import BrokerFacts, SyncInterval, User
from bridge.doctor.finding import Finding, Severity
from bridge.doctor.source import PublicationFacts, SlotFacts, SourceFacts
from bridge.mapping import Mapping, load_mapping
from bridge.postgres import Source
from bridge.settings import BridgeSettings
from bridge.stream import stream_config
from protos.events.v1.mark_pb2 import OwnerMark, PositionMark

MIB = 1024 * 1024
GIB = 1024 * MIB
EPOCH = "0" * 20
SETTINGS = BridgeSettings()
SOURCE = Source("7", 1, 0x2000, "zephyr")
MAPPING: Mapping = load_mapping()


def slot(**changed: Any) -> SlotFacts:
    given: dict[str, Any] = {
        "plugin": "pgoutput",
        "database": "zephyr",
        "active": True,
        "wal_status": "reserved",
        "confirmed_lsn": "0/1000",
        "held_bytes": 4096,
        "safe_bytes": None,
        "catalog_age": 10,
    }
    return SlotFacts(**given | changed)


def publication(**changed: Any) -> PublicationFacts:
    given: dict[str, Any] = {
        "via_root": True,
        "age": 100,
        "is_ours": True,
        "tables": tuple(sorted(MAPPING.tables)),
    }
    return PublicationFacts(**given | changed)


def source(settings: dict[str, str] | None = None, **changed: Any) -> SourceFacts:
    """A Postgres 18 with a limit on the WAL that a slot may hold, and a bridge that reads."""
    fine = {
        "wal_level": "logical",
        "max_slot_wal_keep_size": str(10 * GIB),
        "max_replication_slots": "10",
        "max_wal_senders": "10",
        "wal_sender_timeout": "60",
        "idle_replication_slot_timeout": "0",
        "server_encoding": "UTF8",
    }
    given: dict[str, Any] = {
        "settings": fine | (settings or {}),
        "role": "zephyr",
        "database": "zephyr",
        "may_replicate": True,
        "may_create": True,
        "sees_all": True,
        "is_standby": False,
        "slots_used": 1,
        "senders_used": 1,
        "wal_bytes_per_s": 1000.0,
        "catalog": Catalog("logical", {}, Publication("zephyr", False, True)),
        "slot": slot(),
        "publication": publication(),
    }
    return SourceFacts(**given | changed)


def stream(config: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    """STREAM.INFO of a stream as the bridge makes it, with a limit on its bytes."""
    made = stream_config(SETTINGS, EPOCH) | {"max_bytes": 100 * GIB, "allow_batched": True}
    fine = {"first_seq": 1, "last_seq": 10, "bytes": 1000, "messages": 10}
    return {"config": made | (config or {}), "state": fine | state}


def broker(**changed: Any) -> BrokerFacts:
    given: dict[str, Any] = {
        "version": (2, 15, 1),
        "max_payload": 9 * MIB,
        "has_jetstream": True,
        "listens_on_loopback": False,
        "user": User("bridge", "APP"),
        "limits": {"max_storage": -1},
        "stream": stream(),
        "position": PositionMark(epoch=EPOCH, system_id="7", timeline=1, commit_lsn=0x1800, wal_lsn=0x1800),
        "owner": OwnerMark(epoch=EPOCH, term=3, owner="host:1:ab"),
        "sync": SyncInterval(120),
    }
    return BrokerFacts(**given | changed)


def severity_of(findings: list[Finding], check: str) -> Severity:
    """The worst severity of a check, which must have been made."""
    return max(finding.severity for finding in findings if finding.check == check)


def trouble(findings: list[Finding]) -> list[str]:
    """The checks that found something, each once; each must say why and have a mend or be a note."""
    for finding in findings:
        assert finding.found
        assert "\n" not in finding.found
        if finding.severity >= Severity.UNSAFE:
            assert finding.why, finding
            assert finding.mend, finding
    return list(dict.fromkeys(finding.check for finding in findings if finding.severity > Severity.OK))
