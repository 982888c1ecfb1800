"""Where the ``zephyr`` command begins: compiled modules first, since they must come before any import of them."""

from __future__ import annotations

import sys

from zephyr.accelerator.finder import AcceleratorError, enable


def main() -> None:
    """Runs the command line and exits."""
    try:
        enable()
    except AcceleratorError as exc:
        sys.stderr.write(f"error: {exc}\n")
        sys.exit(2)
    from zephyr.cli import main as command_line

    command_line()
