"""The server's settings: read from the environment, and refused by the variable's name."""

from __future__ import annotations

import pytest

from realtime.errors import SettingInvalid
from realtime.settings import load_settings


def test_the_environment_is_read_and_what_is_given_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEPHYR_NATS_URL", "nats://a:1")
    monkeypatch.setenv("ZEPHYR_RING_ENTRIES", "99")
    monkeypatch.setenv("ZEPHYR_KINDS", "cat, dog ,b.d,")
    monkeypatch.setenv("ZEPHYR_LISTEN", "0.0.0.0:1")
    settings = load_settings(listen="127.0.0.1:0", nats_url=None)
    assert (settings.nats_url, settings.ring_entries, settings.listen) == ("nats://a:1", 99, "127.0.0.1:0")
    assert settings.kinds == {"note", "user", "workspace", "membership", "cat", "dog"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ZEPHYR_LISTEN", "7400"),
        ("ZEPHYR_LISTEN", "127.0.0.1:"),
        ("ZEPHYR_LISTEN", "127.0.0.1:65536"),
        ("ZEPHYR_RING_ENTRIES", "3"),
        ("ZEPHYR_RING_ENTRIES", "many"),
        ("ZEPHYR_RING_BYTES", "1"),
        ("ZEPHYR_BROADCAST_BYTES", "0"),
        ("ZEPHYR_BROADCAST_BYTES", "1000000000"),
        ("ZEPHYR_DRAIN_S", "-1"),
    ],
)
def test_a_malformed_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingInvalid, match=f"^{variable}: ") as caught:
        load_settings()
    assert "\n" not in caught.value.message
