"""Reads a git repository through git itself, one commit after the other.

Two processes do the work: ``git log --raw`` names what each commit changed, oldest first, and
one ``git cat-file --batch`` gives the blobs; no more than one commit is held here. A merge is
compared with each of its parents, and the union of those comparisons is what it changed. Git is
shut off from the user's configuration, from the network and from writing: whose clone it is, and
how they like their diffs, makes no difference.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from zephyr.console import CommandError
from zephyr.demo.gitlog import FORMAT, LogParser, RawCommit, text
from zephyr.demo.tree import Missing, TooLarge

_CONFIG = Path(__file__).with_name("git.config")
_PIN = (
    "diff.renames=true",
    "diff.renameLimit=1000",
    "diff.relative=false",
    "log.diffMerges=separate",
    "log.showRoot=true",
    "core.quotepath=off",
    "core.fsmonitor=false",
)
_CHUNK_BYTES = 1 << 16
_EXACT = "-M100%"
_GONE = (b"unable to read", b"could not fetch")
"""What git says when it needs a blob, to find out how similar two files are, and has it not."""


class GitRepository:
    """A repository that git can read: a work tree, a bare one, or a git directory alone."""

    def __init__(self, git_dir: Path, name: str) -> None:
        self.git_dir = git_dir
        self.name = name
        self.missing: frozenset[str] = frozenset()
        """Ids of objects that a partial clone left at its remote."""
        self._is_partial = False

    @classmethod
    async def open(cls, path: Path) -> GitRepository:
        """Raises CommandError: there is no such folder, it is no repository, or there is no git."""
        git_dir = _git_dir_at(path)
        if git_dir is None:
            code, out, err = await _call("-C", str(path), "rev-parse", "--absolute-git-dir")
            if code:
                raise CommandError(
                    f"{path} is not a git repository ({_first_line(err)})",
                    "pass --repo PATH of a clone, or leave --repo out",
                    2,
                )
            git_dir = Path(os.fsdecode(out.rstrip(b"\n")))
        name = git_dir.parent.name if git_dir.name == ".git" else git_dir.name.removesuffix(".git")
        repository = cls(git_dir, name or "repository")
        code, out, _ = await repository.call("config", "--get-regexp", r"^remote\..*\.promisor$")
        repository._is_partial = code == 0 and b"true" in out
        return repository

    async def call(self, *arguments: str) -> tuple[int, bytes, bytes]:
        """Exit code, output and errors of one short git command."""
        return await _call(*self._here(), *arguments)

    async def is_shallow(self) -> bool:
        """Whether the clone lacks the older part of its history."""
        _, out, _ = await self.call("rev-parse", "--is-shallow-repository")
        return out.strip() == b"true"

    async def is_empty(self) -> bool:
        """Whether there is no commit at HEAD."""
        code, _, _ = await self.call("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return code != 0

    async def count_commits(self) -> int:
        """How many commits HEAD reaches."""
        code, out, err = await self.call("rev-list", "--count", "HEAD")
        if code:
            raise _unreadable(self.git_dir, err)
        return int(out)

    async def commits(self) -> AsyncGenerator[RawCommit, None]:
        """Every commit that HEAD reaches, parents first.

        Where a blob is missing that git wants for finding renames, the log goes on from there with
        exact renames alone: the order of commits does not depend on it.

        Raises:
            CommandError: a commit or tree is missing or damaged.
        """
        if self._is_partial and not self.missing:
            self.missing = await self._missing_objects()
        done = 0
        for renames in (_EXACT,) if self._is_partial else ("-M", _EXACT):
            parser, seen = LogParser(), 0
            with tempfile.TemporaryFile() as errors:
                async with _process(*self._here(), *_log(renames), errors=errors) as process:
                    assert process.stdout is not None
                    while chunk := await process.stdout.read(_CHUNK_BYTES):
                        for commit in parser.feed(chunk):
                            seen += 1
                            if seen > done:
                                done = seen
                                yield commit
                    code = await process.wait()
                errors.seek(0)
                said = errors.read()
            if code == 0:
                last = parser.end()
                if last is not None and seen == done:
                    yield last
                return
            if renames == _EXACT or not any(words in said for words in _GONE):
                raise _unreadable(self.git_dir, said)

    @asynccontextmanager
    async def blobs(self) -> AsyncIterator[BlobReader]:
        """A reader of blobs, closed on leaving."""
        with tempfile.TemporaryFile() as errors:
            async with _process(*self._here(), "cat-file", "--batch", errors=errors) as process:
                yield BlobReader(process, errors, self)

    async def _missing_objects(self) -> frozenset[str]:
        found: set[str] = set()
        arguments = ("rev-list", "--objects", "--missing=print", "HEAD")
        with tempfile.TemporaryFile() as errors:
            async with _process(*self._here(), *arguments, errors=errors) as process:
                assert process.stdout is not None
                async for line in process.stdout:
                    if line.startswith(b"?"):
                        found.add(line[1:].decode().strip())
                await process.wait()
        return frozenset(found)

    def _here(self) -> tuple[str, ...]:
        # The work tree is never looked at; naming one keeps git from looking for the one it was made with.
        return (f"--git-dir={self.git_dir}", f"--work-tree={self.git_dir}")


class BlobReader:
    """Gives blobs by id from one ``git cat-file --batch``."""

    def __init__(
        self, process: asyncio.subprocess.Process, errors: IO[bytes], repository: GitRepository
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self._errors = errors
        self._repository = repository

    async def read(self, blob: str, limit_bytes: int) -> bytes | Missing | TooLarge:
        """The blob's bytes; ``Missing`` when the repository lacks it, ``TooLarge`` over the limit.

        Raises:
            CommandError: git ended, which a damaged object can make it do.
        """
        if blob in self._repository.missing:
            return Missing()
        try:
            self._input.write(blob.encode() + b"\n")
            await self._input.drain()
            header = (await self._output.readuntil(b"\n")).split()
            if len(header) != 3 or header[1] != b"blob":
                return Missing()
            size = int(header[2])
            if size <= limit_bytes:
                return (await self._output.readexactly(size + 1))[:size]
            left = size + 1
            while left:
                left -= len(await self._output.readexactly(min(left, _CHUNK_BYTES)))
            return TooLarge()
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            self._errors.seek(0)
            raise _unreadable(self._repository.git_dir, self._errors.read()) from exc


def _git_dir_at(path: Path) -> Path | None:
    """``path`` itself when it is a git directory, None when git has to look for one."""
    if not path.is_dir():
        raise CommandError(f"there is no folder {path}", "pass --repo PATH of a git repository", 2)
    is_git_dir = (path / "HEAD").is_file() and (path / "objects").is_dir()
    return path.resolve() if is_git_dir else None


def _log(renames: str) -> tuple[str, ...]:
    return (
        "log",
        "--reverse",
        "--topo-order",
        "--raw",
        f"-O{os.devnull}",
        "-z",
        renames,
        "-m",
        "--no-abbrev",
        "--no-color",
        "--no-ext-diff",
        "--no-show-signature",
        "--no-use-mailmap",
        "--no-notes",
        "--ignore-submodules=none",
        "--encoding=UTF-8",
        f"--format={FORMAT}",
        "HEAD",
        "--",
    )


@asynccontextmanager
async def _process(*arguments: str, errors: IO[bytes]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A git process, ended on leaving."""
    process = await _spawn(*arguments, errors=errors)
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            process.kill()
        if process.stdout is not None:
            # A pipe that is left unread keeps its transport open.
            while await process.stdout.read(_CHUNK_BYTES):
                pass
        await process.wait()


async def _call(*arguments: str) -> tuple[int, bytes, bytes]:
    process = await _spawn(*arguments, errors=asyncio.subprocess.PIPE)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out, err


async def _spawn(*arguments: str, errors: IO[bytes] | int) -> asyncio.subprocess.Process:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_GLOBAL": str(_CONFIG),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    pins = [part for pin in ("safe.directory=*", *_PIN) for part in ("-c", pin)]
    try:
        return await asyncio.create_subprocess_exec(
            "git",
            "--no-pager",
            *pins,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
    except FileNotFoundError as exc:
        raise CommandError("git is not installed", "install git; it reads the repository") from exc


def _unreadable(git_dir: Path, said: bytes) -> CommandError:
    return CommandError(
        f"git cannot read the history of {git_dir} ({_first_line(said)})",
        "check it with `git fsck`, or clone it again whole",
    )


def _first_line(said: bytes) -> str:
    lines = [line for line in text(said).splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or ["git says nothing"])[0].split(": ", 1)[-1]
