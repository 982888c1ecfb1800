"""Rows to be copied, and what the stream must hold of them when the copy is over."""

from __future__ import annotations

from protos.events.v1.snapshot_pb2 import SnapshotMark
from tests.faults.oracle import check_order
from tests.fixtures.stream_reader import Reader, Stored
from tests.fixtures.stream_states import check_states, read_all
from tests.integration.bridge_command import execute

SNAPSHOT = "zephyr._mark.0.snapshot"
W1 = "11111111-1111-4111-8111-111111111111"


def fill(dsn: str, notes: int, size: int = 100) -> None:
    """One workspace, and so many notes in it; some users."""
    execute(
        dsn,
        f"INSERT INTO workspaces (id, slug, name) VALUES ('{W1}', 'one', 'One')",
        "INSERT INTO users (email, display_name) SELECT 'u' || g, E'tab\\t \\\\N ümlaut\\n'"
        " FROM generate_series(1, 50) g",
        "INSERT INTO notes (workspace_id, title, body, metadata)"
        f" SELECT '{W1}', 'note ' || g, repeat('x', {size}), '{{\"a\": \"b\"}}'"
        f" FROM generate_series(1, {notes}) g",
    )


def fill_notes(dsn: str, notes: int) -> None:
    """So many notes in W1, which has to be there; few on a block, so that some thousands have several parts."""
    execute(
        dsn,
        "INSERT INTO notes (workspace_id, title, body)"
        f" SELECT '{W1}', 'note ' || g, repeat('x', 1100) FROM generate_series(1, {notes}) g",
    )


async def marks(reader: Reader) -> list[SnapshotMark]:
    """What the copy said of itself, in order."""
    found: list[SnapshotMark] = []
    after = 0
    while (message := await reader.get(seq=after + 1, next_by_subj=SNAPSHOT)) is not None:
        found.append(SnapshotMark.FromString(message.payload))
        after = message.sequence
    return found


async def check(reader: Reader, dsn: str) -> list[Stored]:
    """The stream folds to the tables, each id stands once, and changes stand in their order."""
    await reader.caught_up(dsn, timeout=30)
    events = [message for message in await read_all(reader) if not message.is_mark]
    ids = [message.headers["Zephyr-Id"] for message in events]
    assert len(set(ids)) == len(ids)
    check_order([message for message in events if "Zephyr-Commit" in message.headers])
    await check_states(events, dsn)
    return events
