"""Commits of a history as a test reads them, and the notes that they end in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zephyr.demo.history import Action, CommitChanges, History, choose_history

POEM = "".join(f"line {number} of a text that is long enough to be known again\n" for number in range(20))


async def read(path: Path, limit: int | None = None) -> tuple[History, list[CommitChanges]]:
    history = await choose_history(path, limit)
    return history, [commit async for commit in history.commits()]


def notes_after(commits: Sequence[CommitChanges]) -> dict[str, str]:
    """The notes after all commits; fails when a change does not follow from those before."""
    notes: dict[int, tuple[str, str]] = {}
    for commit in commits:
        for change in commit.changes:
            if change.action is Action.ADD:
                assert change.note not in notes
                assert change.text is not None
                notes[change.note] = change.path, change.text
                continue
            path, text = notes.pop(change.note)
            assert path == (change.old_path if change.action is Action.RENAME else change.path)
            if change.action is not Action.DELETE:
                notes[change.note] = change.path, text if change.text is None else change.text
    assert len({path for path, _ in notes.values()}) == len(notes)
    return dict(notes.values())


def actions(commit: CommitChanges) -> list[tuple[str, str]]:
    return [(change.action.value, change.path) for change in commit.changes]
