"""What real git gives that can be no note: it is skipped and counted, and stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.repo import Repo
from tests.unit.zephyr.demo.commits import POEM, actions, notes_after, read
from zephyr.demo.tree import NOTE_LIMIT_BYTES


async def test_binary_files_are_skipped_and_delete_the_note_that_was(repo: Repo) -> None:
    repo.write("turns", "text")
    repo.write("nul", b"a\0b")
    repo.write("latin", "é".encode("latin-1"))
    repo.commit()
    repo.write("turns", b"\xff\xfe")
    repo.commit()
    repo.write("turns", "text again")
    repo.commit()
    history, commits = await read(repo.path)
    assert history.skipped == {"binary": 3}
    assert [actions(commit) for commit in commits] == [
        [("add", "turns")],
        [("delete", "turns")],
        [("add", "turns")],
    ]


async def test_symlinks_and_submodules_are_skipped(repo: Repo) -> None:
    repo.write("a", "a")
    (repo.path / "link").symlink_to("a")
    repo.commit()
    head = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    repo.git("commit", "--quiet", "-m", "module")
    (repo.path / "a").unlink()
    (repo.path / "a").symlink_to("link")
    repo.git("add", "a")
    repo.git("commit", "--quiet", "-m", "a file becomes a link")
    history, commits = await read(repo.path)
    assert history.skipped == {"symlink": 2, "submodule": 1}
    assert [actions(commit) for commit in commits] == [[("add", "a")], [], [("delete", "a")]]


async def test_files_over_the_event_limit_are_skipped(repo: Repo) -> None:
    repo.write("grows", "small")
    repo.write("just fits", "x" * (NOTE_LIMIT_BYTES - len("just fits")))
    repo.commit()
    repo.write("grows", "x" * NOTE_LIMIT_BYTES)
    repo.commit()
    repo.write("after", "read on")
    repo.commit()
    history, commits = await read(repo.path)
    assert history.skipped == {"too large": 1}
    assert actions(commits[1]) == [("delete", "grows")]
    assert sorted(notes_after(commits)) == ["after", "just fits"]


@pytest.mark.parametrize("is_rename", [False, True])
async def test_missing_blobs_are_skipped_and_stop_nothing(repo: Repo, is_rename: bool) -> None:
    repo.write("a", POEM)
    repo.write("keep", "keep")
    repo.commit()
    if is_rename:
        # Git wants to know how similar the two are, and cannot.
        repo.git("mv", "a", "b")
    repo.write("b" if is_rename else "a", POEM + "more\n")
    repo.commit()
    repo.write("keep", "kept")
    repo.commit()
    repo.remove_blob("HEAD~2:a")
    history, commits = await read(repo.path)
    assert history.skipped == {"missing": 1}
    assert len(commits) == 3
    assert notes_after(commits) == {"b" if is_rename else "a": POEM + "more\n", "keep": "kept"}


async def test_a_partial_clone_is_read_without_asking_its_remote(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", POEM)
    repo.commit()
    repo.git("mv", "a", "b")
    repo.commit()
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git(
        "clone", "--quiet", "--bare", "--filter=blob:none", f"file://{repo.path}", str(tmp_path / "part")
    )
    history, commits = await read(tmp_path / "part")
    assert history.skipped == {"missing": 2}
    assert [len(commit.changes) for commit in commits] == [0, 0]
