"""A history: commits one after the other, each with who wrote it and what it did to notes.

It comes from a git repository, or where there is none that could be replayed, from the file that
is shipped. Either way it is read as it is replayed: one commit is held, and which note stands at
which path, never the texts of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zephyr.console import CommandError
from zephyr.demo.git import GitRepository
from zephyr.demo.shipped import ShippedReader, read_lines
from zephyr.demo.tree import Action, FileChange, Tree

__all__ = [
    "Action",
    "CommitChanges",
    "FileChange",
    "GitHistory",
    "History",
    "ShippedHistory",
    "choose_history",
]

_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class CommitChanges:
    """What one commit did. ``id`` is git's, empty in the shipped history; ``message`` its first
    paragraph; ``changes`` may be empty, each of them about another note."""

    id: str
    author_name: str
    author_email: str
    message: str
    changes: list[FileChange]


class History(Protocol):
    """Commits to replay, oldest first. ``skipped`` counts by reason the files passed over so far."""

    name: str
    total: int
    notice: str
    """What the person should know of the choice; mostly empty."""

    @property
    def skipped(self) -> Counter[str]: ...

    def commits(self) -> AsyncGenerator[CommitChanges, None]: ...


class GitHistory:
    """The commits that a repository's HEAD reaches, the first ``limit`` of them."""

    notice = ""

    def __init__(self, repository: GitRepository, total: int) -> None:
        self.name = repository.name
        self.total = total
        self._repository = repository
        self._tree = Tree()

    @property
    def skipped(self) -> Counter[str]:
        return self._tree.skipped

    async def commits(self) -> AsyncGenerator[CommitChanges, None]:
        """Raises CommandError: the repository is damaged."""
        left = self.total
        async with self._repository.blobs() as blobs, aclosing(self._repository.commits()) as raw_commits:
            async for raw in raw_commits:
                changes = await self._tree.apply(raw.changes, blobs.read)
                yield CommitChanges(raw.id, raw.author_name, raw.author_email, raw.message, changes)
                left -= 1
                if left <= 0:
                    return


class ShippedHistory:
    """The history that comes along."""

    name = "shipped"

    def __init__(self, limit: int | None, notice: str) -> None:
        self.notice = notice
        self.skipped: Counter[str] = Counter()
        self._lines = read_lines()[:limit]
        self.total = len(self._lines)

    async def commits(self) -> AsyncGenerator[CommitChanges, None]:
        """The lines of the file."""
        reader = ShippedReader()
        for line in self._lines:
            yield CommitChanges("", line["name"], line["email"], line["message"], list(reader.changes(line)))


async def choose_history(path: Path | None, limit: int | None) -> History:
    """The history of the repository at ``path``, of this project's own when it is None; the shipped
    one, with a notice that says why, where that has no whole history. ``limit`` takes the first commits.

    Raises:
        CommandError: ``path`` does not exist or is no repository, or git is not installed.
    """
    if path is not None:
        repository = await GitRepository.open(path)
    elif not _has_git(_PROJECT):
        return ShippedHistory(limit, _notice(f"{_PROJECT} is a copy without its git history", None))
    else:
        try:
            repository = await GitRepository.open(_PROJECT)
        except CommandError as exc:
            return ShippedHistory(limit, _notice(exc.message, None))
    where = path or _PROJECT
    if await repository.is_shallow():
        why = f"{where} is a shallow clone: the older part of its history is missing"
        return ShippedHistory(limit, _notice(why, f"run `git -C {where} fetch --unshallow`"))
    if await repository.is_empty():
        return ShippedHistory(limit, _notice(f"{where} has no commit yet", None))
    total = await repository.count_commits()
    return GitHistory(repository, total if limit is None else min(limit, total))


def _has_git(folder: Path) -> bool:
    """Whether the folder itself is a work tree, and not merely inside one."""
    return (folder / ".git").exists()


def _notice(why: str, mend: str | None) -> str:
    mend = f"{mend}, or name another clone with --repo PATH" if mend else "name a clone with --repo PATH"
    return f"{why}, so the small history that is shipped is replayed instead; for a real one {mend}"
