"""The checks of NATS, the stream and its marks, on facts that are plain values."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.doctor.broker import BrokerFacts, SyncInterval
from bridge.doctor.broker_checks import check_broker
from bridge.doctor.epoch_checks import check_epoch
from bridge.doctor.finding import Finding, Severity
from bridge.settings import BridgeSettings
from protos.events.v1.mark_pb2 import PositionMark
from tests.unit.bridge import doctor_facts as fact

LIMITED = BridgeSettings(stream_max_bytes=100 * fact.GIB)
HOUR_NS = 3600 * 10**9


def findings(facts: BrokerFacts, settings: BridgeSettings = LIMITED) -> list[Finding]:
    return list(check_broker(facts, settings))


def test_nothing_is_wrong() -> None:
    assert fact.trouble(findings(fact.broker())) == []


@pytest.mark.parametrize(
    ("changed", "check", "severity"),
    [
        ({"version": (2, 11, 9)}, "version", Severity.BROKEN),
        ({"version": (2, 12, 0)}, "version", Severity.NOTE),
        ({"has_jetstream": False}, "jetstream", Severity.BROKEN),
        ({"max_payload": fact.MIB}, "max_payload", Severity.NOTE),
        ({"sync": SyncInterval(300)}, "sync_interval", Severity.UNSAFE),
        ({"sync": SyncInterval(0)}, "sync_interval", Severity.OK),
        ({"sync": None}, "sync_interval", Severity.OK),
        ({"sync": None, "sync_error": "no"}, "system_account", Severity.NOTE),
        ({"stream": None}, "stream", Severity.OK),
        ({"stream": None, "other_stream": "OTHER"}, "stream", Severity.BROKEN),
        ({"stream": fact.stream({"storage": "memory"})}, "stream", Severity.BROKEN),
        ({"stream": fact.stream({"discard": "new"})}, "stream", Severity.BROKEN),
        ({"stream": fact.stream({"metadata": {}})}, "stream", Severity.BROKEN),
        ({"stream": fact.stream({"allow_batched": False})}, "runs", Severity.NOTE),
        ({"limits": {"max_storage": 200 * fact.GIB}}, "account", Severity.OK),
        ({"limits": {"max_storage": fact.GIB}}, "account", Severity.NOTE),
        ({"limits": {"max_storage": 1010}}, "account", Severity.UNSAFE),
    ],
)
def test_a_fact(changed: dict[str, Any], check: str, severity: Severity) -> None:
    found = findings(fact.broker(**changed))
    named = [each for each in found if each.check == f"nats.{check}"]
    assert max((each.severity for each in named), default=Severity.OK) is severity
    # Nothing else is blamed, but for what a foreign stream's own troubles bring with them.
    assert set(fact.trouble(found)) <= {f"nats.{check}"}


@pytest.mark.parametrize(
    ("limits", "severity"),
    [
        ({"stream_max_age_s": 7 * 86400}, Severity.OK),
        ({"stream_max_age_s": 6 * 3600}, Severity.NOTE),
        ({"stream_max_age_s": 60}, Severity.UNSAFE),
        ({"stream_max_bytes": 20 * fact.MIB}, Severity.UNSAFE),
        ({"stream_max_msgs": 100}, Severity.UNSAFE),
        ({"stream_max_msgs": 20_000}, Severity.NOTE),
        ({"stream_max_msgs": 100_000}, Severity.OK),
        ({}, Severity.NOTE),
    ],
)
def test_limits_that_evict_marks(limits: dict[str, Any], severity: Severity) -> None:
    settings = BridgeSettings(**limits)
    config = {
        "max_age": int(settings.stream_max_age_s * 1e9),
        "max_bytes": settings.stream_max_bytes or -1,
        "max_msgs": settings.stream_max_msgs or -1,
    }
    found = findings(fact.broker(stream=fact.stream(config)), settings)
    assert fact.severity_of(found, "nats.limits") is severity
    assert set(fact.trouble(found)) <= {"nats.limits"}


@pytest.mark.parametrize(("hold_back_s", "severity"), [(119, Severity.UNSAFE), (120, Severity.OK)])
def test_an_unknown_sync_interval_is_the_default(hold_back_s: float, severity: Severity) -> None:
    settings = BridgeSettings(stream_max_bytes=100 * fact.GIB, hold_back_s=hold_back_s)
    assert fact.severity_of(findings(fact.broker(sync=None), settings), "nats.sync_interval") is severity


def test_three_replicas_need_no_hold_back() -> None:
    settings = BridgeSettings(stream_max_bytes=100 * fact.GIB, hold_back_s=0, stream_replicas=3)
    facts = fact.broker(stream=fact.stream({"num_replicas": 3}))
    assert fact.trouble(findings(facts, settings)) == []


def mark(**changed: Any) -> PositionMark:
    given: dict[str, Any] = {"epoch": fact.EPOCH, "system_id": "7", "timeline": 1}
    given |= {"commit_lsn": 0x1800, "wal_lsn": 0x1800}
    return PositionMark(**given | changed)


@pytest.mark.parametrize(
    ("source", "broker", "words"),
    [
        ({}, {}, None),
        ({}, {"stream": None}, "no stream 'ZEPHYR'"),
        ({"slot": None}, {"stream": None}, None),
        ({}, {"position": None}, "no position mark left"),
        ({}, {"position": None, "stream": fact.stream(last_seq=0)}, None),
        ({}, {"unreadable": "the last mark is no mark"}, "is no mark"),
        ({}, {"position": mark(epoch="f" * 20)}, "of epoch"),
        ({}, {"position": mark(system_id="8")}, "written from Postgres 8"),
        ({}, {"position": mark(timeline=2)}, "went backwards"),
        ({}, {"position": mark(wal_lsn=0x2001)}, "went backwards"),
        ({"slot": None}, {}, "is gone"),
        ({"slot": None}, {"position": mark(commit_lsn=0, wal_lsn=0)}, None),
        ({"slot": fact.slot(confirmed_lsn="0/1801")}, {}, "lost its end"),
    ],
)
def test_whether_the_epoch_goes_on(source: dict[str, Any], broker: dict[str, Any], words: str | None) -> None:
    found = list(check_epoch(fact.source(**source), fact.broker(**broker), fact.SOURCE, fact.SETTINGS))
    if words is None:
        assert fact.trouble(found) == []
    else:
        (finding,) = found
        assert (finding.check, finding.severity) == ("epoch", Severity.BROKEN)
        assert words in finding.found
        assert "zephyr bridge new-epoch" in finding.mend
