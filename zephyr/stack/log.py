"""A child's log file, bounded.

The child writes to the file itself (O_APPEND), so that it never waits for us and its last
words stay when we are killed. Once the file is over its limit, ``trim`` keeps the last
quarter; lines written in that instant may be lost, the file never grows without end.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

LIMIT_BYTES = 4 << 20
TAIL_BYTES = 16 << 10

# The line that says why: Postgres' FATAL, NATS' [FTL], Valkey's "# Fatal error", our own "error: ".
_CAUSE = re.compile(r"fatal|panic|\berror\b|\[FTL\]|\[ERR\]|failed|could not", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LogFile:
    """The log of one child, kept over its restarts; ``open`` begins a new run."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._run_offset = 0

    def open(self) -> BinaryIO:
        """Opens it for a new run of the child, for appending."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.trim()
        stream = self.path.open("ab", buffering=0)
        self._run_offset = os.fstat(stream.fileno()).st_size
        return stream

    def trim(self) -> None:
        """Keeps the last quarter of the limit when the file is over it."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size <= self._limit_bytes:
            return
        with self.path.open("r+b") as stream:
            stream.seek(size - self._limit_bytes // 4)
            stream.readline()
            kept = stream.read(self._limit_bytes)
            stream.truncate(0)
        with self.path.open("ab", buffering=0) as stream:
            stream.write(kept)
        self._run_offset = 0

    def tail(self, lines: int = 20) -> list[str]:
        """The last lines of the current run, without blank ones and colours."""
        try:
            with self.path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                stream.seek(max(min(self._run_offset, size), size - TAIL_BYTES))
                text = stream.read(TAIL_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        found = [_COLOUR.sub("", line).strip() for line in text.splitlines()]
        return [line for line in found if line][-lines:]

    def cause(self) -> str:
        """The first of the last lines that speaks of an error, else the last line; may be empty."""
        lines = self.tail()
        return next((line for line in lines if _CAUSE.search(line)), lines[-1] if lines else "")
