"""The checks of Postgres, on facts that are plain values: one thing is wrong, and it alone is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.catalog import Publication
from bridge.doctor.finding import Finding, Severity
from bridge.doctor.publication_checks import check_publication
from bridge.doctor.slot_checks import check_slot
from bridge.doctor.source import SourceFacts, Transaction
from bridge.doctor.source_checks import check_source
from tests.unit.bridge import doctor_facts as fact


def findings(facts: SourceFacts) -> list[Finding]:
    return [
        *check_source(facts, fact.SETTINGS),
        *check_publication(facts, fact.MAPPING, fact.SETTINGS),
        *check_slot(facts, fact.SETTINGS),
    ]


def test_nothing_is_wrong() -> None:
    assert fact.trouble(findings(fact.source())) == []


def test_before_the_first_start_nothing_is_wrong() -> None:
    assert fact.trouble(findings(fact.source(slot=None, publication=None))) == []


@pytest.mark.parametrize(
    ("name", "value", "check", "severity"),
    [
        ("wal_level", "replica", "wal_level", Severity.BROKEN),
        ("max_slot_wal_keep_size", "-1", "max_slot_wal_keep_size", Severity.NOTE),
        ("max_slot_wal_keep_size", "4500", "max_slot_wal_keep_size", Severity.UNSAFE),
        ("max_slot_wal_keep_size", "500000", "max_slot_wal_keep_size", Severity.UNSAFE),
        ("max_slot_wal_keep_size", "700000", "max_slot_wal_keep_size", Severity.OK),
        ("max_replication_slots", "1", "max_replication_slots", Severity.OK),
        ("max_wal_senders", "1", "max_wal_senders", Severity.NOTE),
        ("wal_sender_timeout", "0", "wal_sender_timeout", Severity.NOTE),
        ("wal_sender_timeout", "1", "wal_sender_timeout", Severity.NOTE),
        ("idle_replication_slot_timeout", "3600", "idle_replication_slot_timeout", Severity.UNSAFE),
        ("idle_replication_slot_timeout", "864000", "idle_replication_slot_timeout", Severity.NOTE),
        ("server_encoding", "LATIN1", "encoding", Severity.NOTE),
        ("server_encoding", "SQL_ASCII", "encoding", Severity.UNSAFE),
    ],
)
def test_a_setting(name: str, value: str, check: str, severity: Severity) -> None:
    found = findings(fact.source({name: value}))
    assert fact.severity_of(found, f"postgres.{check}") is severity
    assert fact.trouble(found) == ([f"postgres.{check}"] if severity else [])


@pytest.mark.parametrize(
    ("changed", "check", "severity"),
    [
        ({"is_standby": True}, "primary", Severity.UNSAFE),
        ({"may_replicate": False}, "replication", Severity.BROKEN),
        ({"other_bridges": (("other", "db"),)}, "bridges", Severity.NOTE),
        ({"slot": None, "slots_used": 10}, "max_replication_slots", Severity.BROKEN),
        ({"slot": None, "senders_used": 10}, "max_wal_senders", Severity.BROKEN),
        ({"slot": fact.slot(plugin="wal2json")}, "slot", Severity.BROKEN),
        ({"slot": fact.slot(database="other")}, "slot", Severity.BROKEN),
        ({"slot": fact.slot(wal_status="lost", held_bytes=None)}, "slot", Severity.BROKEN),
        ({"slot": fact.slot(invalidation_reason="idle_timeout")}, "slot", Severity.BROKEN),
        ({"slot": fact.slot(wal_status="unreserved")}, "slot", Severity.UNSAFE),
        ({"slot": fact.slot(active=False)}, "slot", Severity.NOTE),
        ({"slot": fact.slot(active=False, held_bytes=2 * fact.GIB)}, "slot", Severity.UNSAFE),
        ({"slot": fact.slot(held_bytes=2 * fact.GIB)}, "slot", Severity.NOTE),
        ({"slot": None, "publication": None, "may_create": False}, "publication", Severity.BROKEN),
        (
            {"slot": None, "publication": None, "foreign_tables": ("public.notes",)},
            "publication",
            Severity.BROKEN,
        ),
        ({"publication": None}, "publication", Severity.BROKEN),
        ({"publication": fact.publication(via_root=False)}, "publication", Severity.BROKEN),
        ({"publication": fact.publication(tables=("public.notes",))}, "publication", Severity.UNSAFE),
        (
            {"publication": fact.publication(tables=(*fact.MAPPING.tables, "public.other"))},
            "publication",
            Severity.NOTE,
        ),
        ({"publication": fact.publication(age=10)}, "publication_order", Severity.NOTE),
        ({"transactions": (Transaction("process 5", 4000, "SELECT 1"),)}, "transactions", Severity.NOTE),
        ({"transactions": (Transaction("process 5", 40, "SELECT 1"),)}, "transactions", Severity.OK),
    ],
)
def test_a_fact(changed: dict[str, Any], check: str, severity: Severity) -> None:
    found = findings(fact.source(**changed))
    assert fact.severity_of(found, f"postgres.{check}") is severity
    assert fact.trouble(found) == ([f"postgres.{check}"] if severity else [])


def test_a_publication_that_leaves_out_operations() -> None:
    facts = fact.source()
    catalog = replace(facts.catalog, publication=Publication("zephyr", False, every_operation=False))
    found = findings(replace(facts, catalog=catalog))
    assert fact.trouble(found) == ["postgres.publication"]
    assert fact.severity_of(found, "postgres.publication") is Severity.BROKEN


def test_a_slot_over_its_limit_gets_a_larger_one() -> None:
    facts = fact.source(
        {"max_slot_wal_keep_size": str(4 * fact.GIB)}, slot=fact.slot(held_bytes=4 * fact.GIB)
    )
    (finding,) = (each for each in findings(facts) if each.check == "postgres.max_slot_wal_keep_size")
    assert finding.severity is Severity.UNSAFE
    assert "max_slot_wal_keep_size = '8GB'" in finding.mend
