"""The bridge's settings: from the environment, and refused by the variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import SettingInvalid
from bridge.settings import BridgeSettings, load_settings

VARIABLES = {
    "ZEPHYR_NATS_URL": ("nats_url", "nats://h:1", "nats://h:1"),
    "ZEPHYR_POSTGRES_DSN": ("postgres_dsn", "postgresql://h", "postgresql://h"),
    "ZEPHYR_MAPPING": ("mapping", "/m.toml", Path("/m.toml")),
    "ZEPHYR_STREAM": ("stream", "A-b_1", "A-b_1"),
    "ZEPHYR_KINDS": ("extra_kinds", "ship", "ship"),
    "ZEPHYR_SLOT": ("slot", "a_1", "a_1"),
    "ZEPHYR_PUBLICATION": ("publication", "b_2", "b_2"),
    "ZEPHYR_STREAM_MAX_AGE_S": ("stream_max_age_s", "1.5", 1.5),
    "ZEPHYR_STREAM_MAX_BYTES": ("stream_max_bytes", "100000000", 100_000_000),
    "ZEPHYR_STREAM_MAX_MSGS": ("stream_max_msgs", "8", 8),
    "ZEPHYR_STREAM_REPLICAS": ("stream_replicas", "3", 3),
    "ZEPHYR_SNAPSHOT": ("snapshot", "never", "never"),
    "ZEPHYR_SNAPSHOT_WORKERS": ("snapshot_workers", "4", 4),
    "ZEPHYR_SNAPSHOT_MAX_ROWS_PER_S": ("snapshot_max_rows_per_s", "100", 100),
    "ZEPHYR_BRIDGE_ON_EPOCH_LOST": ("on_epoch_lost", "renew", "renew"),
    "ZEPHYR_BRIDGE_MAX_EVENT_BYTES": ("max_event_bytes", "1024", 1024),
    "ZEPHYR_BRIDGE_HOLD_BACK_S": ("hold_back_s", "0", 0.0),
    "ZEPHYR_BRIDGE_LOCK_WAIT_S": ("lock_wait_s", "2", 2.0),
    "ZEPHYR_BRIDGE_MARK_INTERVAL_S": ("mark_interval_s", "0.5", 0.5),
    "ZEPHYR_BRIDGE_PUBLISH_TIMEOUT_S": ("publish_timeout_s", "7", 7.0),
    "ZEPHYR_BRIDGE_ON_POISON": ("on_poison", "stop", "stop"),
    "ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE": ("on_schema_change", "dead-letter", "dead-letter"),
    "ZEPHYR_BRIDGE_HEARTBEAT_S": ("heartbeat_s", "0", 0.0),
    "ZEPHYR_BRIDGE_HELD_WAL_WARN_BYTES": ("held_wal_warn_bytes", "1000", 1000),
    "ZEPHYR_CLOUDEVENTS": ("cloudevents", "on", "on"),
    "ZEPHYR_BRIDGE_STANDBY": ("standby", "1", True),
}
WRONG = {
    "ZEPHYR_STREAM": ("", "a.b", "a b", "é", "x" * 256, "a\n"),
    "ZEPHYR_SLOT": ("", "A", "a-b", "x" * 64, 'a"; DROP', "a\n"),
    "ZEPHYR_PUBLICATION": ("", "Pub", "a b"),
    "ZEPHYR_STREAM_MAX_AGE_S": ("-1", "day", "nan", "inf"),
    "ZEPHYR_STREAM_MAX_BYTES": ("-1", "1GB"),
    "ZEPHYR_STREAM_MAX_MSGS": ("-1", "7", "1.5"),
    "ZEPHYR_STREAM_REPLICAS": ("0", "6"),
    "ZEPHYR_SNAPSHOT": ("", "always"),
    "ZEPHYR_SNAPSHOT_WORKERS": ("0", "33"),
    "ZEPHYR_SNAPSHOT_MAX_ROWS_PER_S": ("-1", "x"),
    "ZEPHYR_BRIDGE_ON_EPOCH_LOST": ("", "go on"),
    "ZEPHYR_BRIDGE_MAX_EVENT_BYTES": ("0", "many"),
    "ZEPHYR_BRIDGE_HOLD_BACK_S": ("-1", "nan"),
    "ZEPHYR_BRIDGE_LOCK_WAIT_S": ("-1", "x"),
    "ZEPHYR_BRIDGE_MARK_INTERVAL_S": ("0", "61", ""),
    "ZEPHYR_BRIDGE_PUBLISH_TIMEOUT_S": ("0", "x", "inf"),
    "ZEPHYR_BRIDGE_ON_POISON": ("", "skip"),
    "ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE": ("", "ignore"),
    "ZEPHYR_BRIDGE_HEARTBEAT_S": ("-1", "nan", "3601"),
    "ZEPHYR_BRIDGE_HELD_WAL_WARN_BYTES": ("-1", "1GB"),
    "ZEPHYR_CLOUDEVENTS": ("", "maybe"),
    "ZEPHYR_BRIDGE_STANDBY": ("maybe",),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name for name, _, _ in VARIABLES.values()} == set(BridgeSettings.model_fields)
    for variable, (_, text, _) in VARIABLES.items():
        monkeypatch.setenv(variable, text)
    settings = load_settings()
    for name, _, value in VARIABLES.values():
        assert getattr(settings, name) == value


def test_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEPHYR_SLOT", "from_environment")
    assert load_settings(slot="given").slot == "given"
    assert load_settings(slot=None).slot == "from_environment"


def test_defaults_are_safe() -> None:
    settings = load_settings()
    # The broker's own default sync interval is two minutes.
    assert settings.hold_back_s >= 120
    assert (settings.stream_max_age_s, settings.stream_max_bytes, settings.stream_max_msgs) == (0, 0, 0)


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, texts in WRONG.items() for text in texts]
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingInvalid) as refused:
        load_settings()
    assert refused.value.message.startswith(f"{variable}: ")
    assert "\n" not in refused.value.message
    assert refused.value.exit_code == 2
    name = VARIABLES[variable][0]
    monkeypatch.delenv(variable)
    with pytest.raises(SettingInvalid, match=f"^{variable}: "):
        load_settings(**{name: text})


def test_no_event_may_be_larger_than_half_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEPHYR_STREAM_MAX_BYTES", "10000")
    with pytest.raises(SettingInvalid, match=r"^ZEPHYR_BRIDGE_MAX_EVENT_BYTES: .*ZEPHYR_STREAM_MAX_BYTES"):
        load_settings()
    assert load_settings(max_event_bytes=5000).stream_max_bytes == 10000


def test_kinds_of_domain_events(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().kinds == frozenset()
    monkeypatch.setenv("ZEPHYR_KINDS", "ship, order ,b.d,")
    assert load_settings().kinds == {"ship", "order"}
