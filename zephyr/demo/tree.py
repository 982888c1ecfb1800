"""Turns what commits did to files into what happened to notes.

Git's history is a graph, the replay is a line: commits of branches stand one after the other
and meet in merges. So a change is applied as what it leaves at a path, not as what it did there:
a path that holds the same blob already gives nothing, a rename of what is not there is an add, a
rename onto what is there deletes that first. A merge is compared with each parent, hence the last
commit that names a path has the last word on it, and after HEAD the notes are the text files of
HEAD's tree. No I/O happens here but for the blobs that ``read`` gives.

Not every file can be a note: symlinks, submodules, binary files (a NUL byte, or not UTF-8), missing
blobs and those over the event limit are skipped and counted; a note that becomes one is deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum

NOTE_LIMIT_BYTES = 8 * 1024 * 1024 - 64 * 1024
"""Title and text together: an event may have 8 MiB, the envelope takes a part of it."""

_SYMLINK, _SUBMODULE = "120000", "160000"


class Missing:
    """The repository lacks the blob."""


class TooLarge:
    """The blob is over the limit."""


@dataclass(frozen=True, slots=True)
class RawChange:
    """What one comparison says of a path: ``status`` is A, M, T, D, R or C as in ``git log --raw``;
    ``source`` is the path before a rename; ``mode`` and ``blob`` are those after the change."""

    status: str
    path: bytes
    source: bytes | None
    mode: str
    blob: str


class Action(Enum):
    """What happened to a note."""

    ADD = "add"
    MODIFY = "modify"
    RENAME = "rename"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FileChange:
    """A change of one note. ``note`` counts the notes of the history from 1: a path that was deleted
    and comes back is a new one. ``text`` is None where it stays as it was, and for a delete."""

    action: Action
    note: int
    path: str
    text: str | None = None
    old_path: str = ""


@dataclass(frozen=True, slots=True)
class _Note:
    number: int
    blob: str


Read = Callable[[str, int], Awaitable[bytes | Missing | TooLarge]]


class Tree:
    """The notes as they are after the commits that were applied; ``skipped`` counts by reason."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self._notes: dict[bytes, _Note] = {}
        # Paths that are no notes, with what was skipped there, so that it is counted once.
        self._passed_over: dict[bytes, tuple[str, str]] = {}
        self._count = 0

    @property
    def paths(self) -> frozenset[bytes]:
        """The paths of the notes that there are."""
        return frozenset(self._notes)

    async def apply(self, changes: Iterable[RawChange], read: Read) -> list[FileChange]:
        """What the commit does to the notes. ``changes`` are its comparisons, one parent after the other."""
        targets: dict[bytes, RawChange] = {}
        gone: dict[bytes, None] = {}
        for change in changes:
            if change.source is not None:
                gone[change.source] = None
            if change.status == "D":
                gone[change.path] = None
            elif change.source is not None or change.path not in targets:
                targets[change.path] = change
        for path in targets:
            gone.pop(path, None)

        done: list[FileChange] = []
        for path, change in targets.items():
            done += await self._put(path, change, gone, read)
        for path in gone:
            done += self._remove(path)
        return done

    async def _put(
        self, path: bytes, change: RawChange, gone: dict[bytes, None], read: Read
    ) -> list[FileChange]:
        note = self._notes.get(path)
        source = change.source if change.source in gone else None
        moved = self._notes.get(source) if source is not None else None
        if note is not None and note.blob == change.blob and moved is None and _is_file(change.mode):
            return []
        if self._passed_over.get(path) == (change.mode, change.blob):
            return []

        title, text = _title(path), None
        if moved is None or moved.blob != change.blob or not _is_file(change.mode):
            try:
                text = await _load(change, NOTE_LIMIT_BYTES - len(title.encode()), read)
            except _Unfit as unfit:
                self.skipped[str(unfit)] += 1
                done = self._remove(path)
                self._passed_over[path] = (change.mode, change.blob)
                return done
        self._passed_over.pop(path, None)

        if moved is not None and source is not None:
            done = self._remove(path)
            gone.pop(source, None)
            del self._notes[source]
            self._notes[path] = _Note(moved.number, change.blob)
            return [*done, FileChange(Action.RENAME, moved.number, title, text, _title(source))]
        if note is not None:
            self._notes[path] = _Note(note.number, change.blob)
            return [FileChange(Action.MODIFY, note.number, title, text)]
        self._count += 1
        self._notes[path] = _Note(self._count, change.blob)
        return [FileChange(Action.ADD, self._count, title, text)]

    def _remove(self, path: bytes) -> list[FileChange]:
        self._passed_over.pop(path, None)
        note = self._notes.pop(path, None)
        return [] if note is None else [FileChange(Action.DELETE, note.number, _title(path))]


class _Unfit(Exception):
    """The file cannot be a note; the text is the reason."""


async def _load(change: RawChange, limit_bytes: int, read: Read) -> str:
    """The file's text.

    Raises:
        _Unfit: it has none, or too much of it.
    """
    if change.mode == _SYMLINK:
        raise _Unfit("symlink")
    if change.mode == _SUBMODULE:
        raise _Unfit("submodule")
    content = await read(change.blob, limit_bytes)
    if isinstance(content, Missing):
        raise _Unfit("missing")
    if isinstance(content, TooLarge):
        raise _Unfit("too large")
    if b"\0" in content:
        raise _Unfit("binary")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _Unfit("binary") from exc


def _is_file(mode: str) -> bool:
    return mode not in (_SYMLINK, _SUBMODULE)


def _title(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
