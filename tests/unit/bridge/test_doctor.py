"""Findings and what a command ends with, numbers as text, clocks, and what tries to publish tell."""

from __future__ import annotations

import pytest

from bridge.doctor.broker import User
from bridge.doctor.clock import Clock, check_clocks, offset_of
from bridge.doctor.finding import Finding, Severity, exit_code
from bridge.doctor.publisher_probe import Answer, Probe, anonymous, check_publishers
from bridge.doctor.words import size_text, time_text
from tests.unit.bridge import doctor_facts as fact


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ([], 0),
        ([Severity.OK, Severity.NOTE], 0),
        ([Severity.NOTE, Severity.UNSAFE], 1),
        ([Severity.BROKEN, Severity.UNSAFE], 4),
        ([Severity.AWAY, Severity.BROKEN, Severity.UNSAFE], 3),
    ],
)
def test_the_worst_decides_the_exit_code(severities: list[Severity], code: int) -> None:
    assert exit_code(Finding("check", severity, "found") for severity in severities) == code


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (3 * 1024**3, "3 GiB"),
        (2**50, "1.02e+03 TiB"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (90, "1.5 min"), (5400, "1.5 h"), (86400, "24 h"), (172800, "2 days")],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_clock_is_known_to_half_the_round_trip() -> None:
    clock = offset_of(105.0, 100.0, 104.0)
    assert (clock.ahead_s, clock.uncertain_s, clock.apart_s) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("ahead_s", "uncertain_s", "severity", "words"),
    [
        (0.9, 0, Severity.OK, "ahead of"),
        (-1.5, 0, Severity.NOTE, "behind"),
        (1.5, 1, Severity.OK, "ahead of"),
        (31, 0, Severity.UNSAFE, "ahead of"),
        (-31, 2, Severity.NOTE, "behind"),
    ],
)
def test_a_clock_that_is_off(ahead_s: float, uncertain_s: float, severity: Severity, words: str) -> None:
    (finding,) = check_clocks({"NATS": Clock(ahead_s, uncertain_s)})
    assert (finding.check, finding.severity) == ("clock.nats", severity)
    assert words in finding.found


def test_when_both_servers_agree_it_is_this_machine() -> None:
    (finding,) = check_clocks({"Postgres": Clock(40, 0), "NATS": Clock(39.5, 0)})
    assert (finding.check, finding.severity) == ("clock.here", Severity.UNSAFE)
    assert "this machine's clock is 40 s behind Postgres and NATS" in finding.found


def test_when_they_do_not_each_is_named() -> None:
    found = list(check_clocks({"Postgres": Clock(40, 0.1), "NATS": Clock(-40, 0.1)}))
    assert [finding.check for finding in found] == ["clock.postgres", "clock.nats"]


def test_a_url_without_its_credentials() -> None:
    assert anonymous("nats://user:word@host:4222") == "nats://host:4222"
    assert anonymous("nats://host:4222") == "nats://host:4222"


def tried(answer: Answer, account: str = "APP", *, anonymously: bool = False) -> Probe:
    return Probe(anonymously, True, "", User("app", account), (("zephyr.0._.doctor._.row", answer),))


@pytest.mark.parametrize(
    ("probe", "severity"),
    [
        (tried(Answer.REFUSED), Severity.OK),
        (tried(Answer.ALLOWED), Severity.UNSAFE),
        (tried(Answer.SILENCE), Severity.NOTE),
        # No stream yet: it could publish once there is one. In another account it could not.
        (tried(Answer.NOBODY), Severity.UNSAFE),
        (tried(Answer.NOBODY, "OTHER"), Severity.OK),
        (tried(Answer.ALLOWED, anonymously=True), Severity.UNSAFE),
    ],
)
def test_who_may_publish(probe: Probe, severity: Severity) -> None:
    found = list(check_publishers(fact.broker(), probe, "ZEPHYR"))
    assert fact.severity_of(found, "nats.publishers") is severity
    fact.trouble(found)


def test_anybody_may_publish_on_this_machine_alone() -> None:
    found = list(
        check_publishers(
            fact.broker(listens_on_loopback=True), tried(Answer.ALLOWED, anonymously=True), "ZEPHYR"
        )
    )
    assert fact.severity_of(found, "nats.publishers") is Severity.NOTE


def test_nobody_gets_in_without_credentials() -> None:
    found = list(check_publishers(fact.broker(), Probe(True, connects=False, error="no"), "ZEPHYR"))
    assert fact.trouble(found) == ["nats.application"]
