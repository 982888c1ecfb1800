"""Timelines: does the server's history have what the stream has?

A promotion, of a standby or of a restored backup, leaves its timeline at a point of the WAL and
begins another. What the stream has from before that point happened on the new one too; what
it has from behind it never did, however far the server has come since.
Source: the Postgres documentation, "Streaming Replication Protocol", TIMELINE_HISTORY.
"""

from __future__ import annotations

from bridge.errors import EpochLost
from bridge.postgres import Source, parse_lsn
from protos.events.v1.mark_pb2 import PositionMark


def parse_history(content: bytes) -> dict[int, int]:
    """A timeline history file: where each earlier timeline was left, by its number."""
    left = {}
    for line in content.decode("utf-8", "replace").splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) >= 2 and parts[0].isdigit():
            left[int(parts[0])] = parse_lsn(parts[1])
    return left


def lost_by(source: Source, timeline: int, wal_lsn: int, commit_lsn: int) -> str:
    """Why the server lacks what was read on ``timeline`` before ``wal_lsn`` and with the commit at
    ``commit_lsn``; empty when it has all of it."""
    read_to = max(wal_lsn, commit_lsn)
    if source.timeline < timeline or source.wal_lsn < read_to:
        return (
            f"Postgres went backwards: it is at {source.wal_lsn:X} on timeline {source.timeline},"
            f" the stream at {read_to:X} on timeline {timeline} (restored from a backup?)"
        )
    if source.timeline == timeline or not read_to:
        return ""
    if source.history is None:
        return (
            f"Postgres is on timeline {source.timeline}, and has lost the file that says where it left timeline"
            f" {timeline}, on which the stream was written"
        )
    left = source.history.get(timeline)
    if left is None:
        return f"Postgres came to timeline {source.timeline} without timeline {timeline}, on which the stream was written"
    # The record of a commit begins at its LSN: a timeline that was left there has not got it.
    if left < wal_lsn or left <= commit_lsn:
        return (
            f"Postgres left timeline {timeline} at {left:X}, the stream was written on it up to {read_to:X}"
            " (a standby that was behind was promoted, or a backup was restored)"
        )
    return ""


def check_source(source: Source, mark: PositionMark, commit_lsn: int = 0) -> None:
    """Whether the server is the one of the mark, and has what the stream has: up to ``commit_lsn``, where
    more is stored than the mark says.

    Raises:
        EpochLost: it is another one, or lost some of it.
    """
    if mark.system_id != source.system_id:
        raise EpochLost(
            f"the stream was written from Postgres {mark.system_id}, this is {source.system_id}",
            "point ZEPHYR_POSTGRES_DSN at the former, or run: zephyr bridge new-epoch",
        )
    lost = lost_by(source, mark.timeline, mark.wal_lsn, max(commit_lsn, mark.commit_lsn))
    if lost:
        raise EpochLost(
            lost, "point ZEPHYR_POSTGRES_DSN at the server that has it, or run: zephyr bridge new-epoch"
        )
