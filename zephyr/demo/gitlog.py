"""The output of ``git log --raw -z -m`` as commits; bytes go in, commits come out, no I/O.

A header is four NUL-ended tokens, the first marked with 0x01. After it stand raw records
(``:mode mode id id status``, the first one behind a newline), each followed by one path, or by two
for a rename. ``-m`` repeats a merge's header before the comparison with each further parent, so a
commit is whole only when the header of another one comes, or the output has ended.
Source: git-log(1) and the section "RAW OUTPUT FORMAT" of git-diff(1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from zephyr.demo.tree import RawChange

FORMAT = "tformat:%x01%H%x00%an%x00%ae%x00%s"
_HEADER_TOKENS = 4
_MARK = b"\x01"


@dataclass(frozen=True, slots=True)
class RawCommit:
    """One commit: who, the first paragraph of the message, and the comparison with each parent."""

    id: str
    author_name: str
    author_email: str
    message: str
    changes: list[RawChange] = field(default_factory=list)


class LogParser:
    """Reads a log in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._header: list[bytes] = []
        self._record: list[bytes] = []
        self._commit: RawCommit | None = None

    def feed(self, data: bytes) -> Iterator[RawCommit]:
        """The commits that ``data`` makes whole.

        Raises:
            ValueError: this is no such log.
        """
        *tokens, self._rest = (self._rest + data).split(b"\0")
        for token in tokens:
            if self._header or (not self._record and token.startswith(_MARK)):
                self._header.append(token)
                if len(self._header) == _HEADER_TOKENS:
                    yield from self._begin()
            elif self._record or token.startswith((b":", b"\n:")):
                self._record.append(token)
                if len(self._record) == (3 if self._is_rename() else 2):
                    self._end_record()
            elif token:
                raise ValueError(f"not a token of git's log: {token[:80]!r}")

    def end(self) -> RawCommit | None:
        """The last commit, once git has ended well."""
        commit, self._commit = self._commit, None
        return commit

    def _begin(self) -> Iterator[RawCommit]:
        identity, name, email, message = (text(token) for token in self._header)
        self._header = []
        identity = identity[1:]
        if self._commit is not None:
            if self._commit.id == identity:
                return
            yield self._commit
        self._commit = RawCommit(identity, name, email, message)

    def _is_rename(self) -> bool:
        return self._record[0].rsplit(b" ", 1)[-1][:1] in (b"R", b"C")

    def _end_record(self) -> None:
        (what, *paths), self._record = self._record, []
        _, mode, _, blob, status = what.lstrip(b"\n").split(b" ")
        if self._commit is None:
            raise ValueError("git's log begins without a commit")
        source = paths[0] if status[:1] == b"R" else None
        self._commit.changes.append(
            RawChange(status[:1].decode(), paths[-1], source, mode.decode(), blob.decode())
        )


def text(raw: bytes) -> str:
    """Bytes of a path or a name as text; what is not UTF-8 stands as ``\\xff``."""
    return raw.decode("utf-8", "backslashreplace")
