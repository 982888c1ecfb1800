"""Which histories have what a stream has, by the server's timeline history file."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bridge.postgres import Source
from bridge.timeline import lost_by, parse_history

# As Postgres writes it: tabs, a reason, and an empty line before what a later promotion adds.
FILE = b"1\t0/3000110\tno recovery target specified\n\n2\t1/A0\tbefore 2026-01-01 00:00:00\n"
HISTORY = {1: 0x3000110, 2: 0x1000000A0}


def test_a_history_file() -> None:
    assert parse_history(FILE) == HISTORY
    assert parse_history(b"") == parse_history(b"# nothing\n") == {}


def source(timeline: int, history: Mapping[int, int] | None, wal_lsn: int = 0x2_0000_0000) -> Source:
    return Source("7", timeline, wal_lsn, "zephyr", history)


@pytest.mark.parametrize(
    ("given", "timeline", "wal_lsn", "commit_lsn", "words"),
    [
        (source(1, {}), 1, 0x3000110, 0x3000100, ""),
        (source(3, HISTORY), 1, 0x3000110, 0x3000100, ""),
        # A commit whose record begins where the timeline was left is not on the new one.
        (source(3, HISTORY), 1, 0x3000110, 0x3000110, "left timeline 1 at 3000110"),
        (source(3, HISTORY), 1, 0x3000111, 0x3000100, "left timeline 1"),
        (source(3, HISTORY), 2, 0x1000000A0, 0, ""),
        (source(3, HISTORY), 2, 0x1000000A1, 0, "left timeline 2"),
        (source(3, HISTORY), 3, 0x2_0000_0000, 0, ""),
        (source(3, HISTORY), 4, 1, 0, "went backwards"),
        (source(3, HISTORY), 3, 0x2_0000_0001, 0, "went backwards"),
        # Its own ancestors are others: two servers were promoted from the first.
        (source(3, {1: 0x3000110}), 2, 1, 0, "without timeline 2"),
        (source(3, None), 2, 1, 0, "lost the file"),
        (source(3, None), 3, 1, 0, ""),
        # Nothing is stored yet.
        (source(3, None), 2, 0, 0, ""),
    ],
)
def test_what_a_server_lost(given: Source, timeline: int, wal_lsn: int, commit_lsn: int, words: str) -> None:
    lost = lost_by(given, timeline, wal_lsn, commit_lsn)
    assert words in lost
    assert bool(lost) == bool(words)
