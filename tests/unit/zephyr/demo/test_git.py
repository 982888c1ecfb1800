"""Histories read from real repositories that real git made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from zephyr.console import CommandError
from zephyr.demo import history as history_module
from zephyr.demo.history import Action, CommitChanges, History, ShippedHistory, choose_history
from zephyr.demo.tree import NOTE_LIMIT_BYTES

POEM = "".join(f"line {number} of a text that is long enough to be known again\n" for number in range(20))


class Repo:
    """A repository to write to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, check: bool = True, given: bytes = b"") -> str:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        identity = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
        }
        done = subprocess.run(
            ("git", *arguments),
            cwd=self.path,
            env=inherited | identity,
            input=given,
            capture_output=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, path: str, content: str | bytes) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str = "change", *options: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *options)
        return self.git("rev-parse", "HEAD")

    def remove_blob(self, revision: str) -> None:
        blob = self.git("rev-parse", revision)
        (self.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "work")


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


async def test_add_modify_rename_and_delete(repo: Repo) -> None:
    repo.write("a.md", POEM)
    repo.write("b.md", "")
    repo.commit("one")
    repo.write("b.md", "not empty")
    repo.commit("two")
    repo.git("mv", "a.md", "c.md")
    repo.commit("three")
    repo.git("mv", "c.md", "d.md")
    repo.write("d.md", POEM + "and more\n")
    repo.commit("four")
    repo.git("rm", "--quiet", "b.md")
    repo.commit("five")
    _, commits = await read(repo.path)
    assert [commit.message for commit in commits] == ["one", "two", "three", "four", "five"]
    assert [actions(commit) for commit in commits] == [
        [("add", "a.md"), ("add", "b.md")],
        [("modify", "b.md")],
        [("rename", "c.md")],
        [("rename", "d.md")],
        [("delete", "b.md")],
    ]
    assert commits[2].changes[0].text is None
    assert commits[3].changes[0].text == POEM + "and more\n"
    assert notes_after(commits) == {"d.md": POEM + "and more\n"}


async def test_a_path_that_comes_back_is_another_note(repo: Repo) -> None:
    for text in ("first", None, "second"):
        if text is None:
            (repo.path / "a").unlink()
        else:
            repo.write("a", text)
        repo.commit()
    _, commits = await read(repo.path)
    assert [commit.changes[0].note for commit in commits] == [1, 1, 2]


async def test_swap(repo: Repo) -> None:
    repo.write("a", POEM)
    repo.write("b", "something else altogether\n" * 20)
    repo.commit()
    repo.write("a", "something else altogether\n" * 20)
    repo.write("b", POEM)
    repo.commit()
    _, commits = await read(repo.path)
    assert actions(commits[1]) == [("modify", "a"), ("modify", "b")]
    assert notes_after(commits)["b"] == POEM


async def test_merge_with_a_conflict_that_was_resolved(repo: Repo) -> None:
    repo.write("a", POEM)
    repo.write("b", "b\n")
    repo.commit("base")
    repo.git("checkout", "--quiet", "-b", "side")
    repo.write("a", POEM + "side\n")
    repo.git("mv", "b", "moved")
    repo.commit("side")
    repo.git("checkout", "--quiet", "main")
    repo.write("a", POEM + "main\n")
    repo.write("b", "b\nchanged on main\n")
    repo.commit("main")
    repo.git("merge", "--quiet", "side", check=False)
    repo.git("rm", "--quiet", "--ignore-unmatch", "b", check=False)
    repo.write("a", POEM + "main and side\n")
    repo.write("moved", "b\nchanged on main\n")
    repo.write("in the merge alone", "evil")
    repo.commit("merge")
    _, commits = await read(repo.path)
    assert commits[0].message == "base"
    assert commits[-1].message == "merge"
    assert len(commits) == 4
    assert notes_after(commits) == {
        "a": POEM + "main and side\n",
        "moved": "b\nchanged on main\n",
        "in the merge alone": "evil",
    }


async def test_unrelated_histories_that_were_joined(repo: Repo) -> None:
    repo.write("a", "a")
    repo.commit()
    repo.git("checkout", "--quiet", "--orphan", "other")
    repo.git("rm", "--quiet", "-rf", ".")
    repo.write("b", "b")
    repo.commit()
    repo.git("merge", "--quiet", "--allow-unrelated-histories", "-m", "join", "main")
    _, commits = await read(repo.path)
    assert len(commits) == 3
    assert notes_after(commits) == {"a": "a", "b": "b"}


async def test_empty_commits_and_changes_of_mode_alone_write_no_note(repo: Repo) -> None:
    repo.write("a", "a")
    repo.commit()
    repo.commit("nothing")
    (repo.path / "a").chmod(0o755)
    repo.commit("mode")
    _, commits = await read(repo.path)
    assert [len(commit.changes) for commit in commits] == [1, 0, 0]


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


async def test_unicode_and_undecodable_paths_and_names(repo: Repo) -> None:
    repo.write("żółw/豌豆 \t\n.md", "ok")
    blob = repo.git("hash-object", "-w", "--stdin", given=b"text")
    repo.git("update-index", "-z", "--index-info", given=b"100644 " + blob.encode() + b"\t\xff.md\0")
    repo.git("add", "żółw")
    repo.git("commit", "--quiet", "-m", "paths")
    tree = repo.git("write-tree")
    raw = (
        f"tree {tree}\nparent {repo.git('rev-parse', 'HEAD')}\n".encode()
        + b"author J\xf8rn <> 1700000000 +0000\ncommitter J\xf8rn <> 1700000000 +0000\n\nm\n"
    )
    commit = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=raw)
    repo.git("update-ref", "HEAD", commit)
    _, commits = await read(repo.path)
    assert sorted(notes_after(commits)) == ["\\xff.md", "żółw/豌豆 \t\n.md"]
    assert commits[1].author_name == "J\\xf8rn"
    assert commits[1].author_email == ""


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


async def test_bare_repositories_and_git_directories_without_a_work_tree(repo: Repo, tmp_path: Path) -> None:
    repo.write("sub/a", "a")
    repo.commit()
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    repo.git("config", "core.worktree", "../nowhere")
    for path, name in (
        (tmp_path / "bare.git", "bare"),
        (repo.path / ".git", "work"),
    ):
        history, commits = await read(path)
        assert history.name == name
        assert notes_after(commits) == {"sub/a": "a"}


async def test_a_folder_inside_a_repository_stands_for_the_whole(repo: Repo) -> None:
    repo.write("sub/a", "a")
    repo.write("b", "b")
    repo.commit()
    _, commits = await read(repo.path / "sub")
    assert notes_after(commits) == {"sub/a": "a", "b": "b"}


async def test_configuration_and_environment_make_no_difference(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a", POEM)
    repo.commit("one")
    repo.git("mv", "a", "b")
    repo.commit("two")
    for key, value in (
        ("diff.renames", "false"),
        ("log.showRoot", "false"),
        ("log.showSignature", "true"),
        ("diff.orderFile", "nowhere"),
        ("color.ui", "always"),
        ("diff.noprefix", "true"),
    ):
        repo.git("config", key, value)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    _, commits = await read(repo.path)
    assert [actions(commit) for commit in commits] == [[("add", "a")], [("rename", "b")]]


async def test_limit_takes_the_first_commits(repo: Repo) -> None:
    for number in range(5):
        repo.write("a", str(number))
        repo.commit(str(number))
    history, commits = await read(repo.path, 2)
    assert history.total == 2
    assert [commit.message for commit in commits] == ["0", "1"]


async def test_a_shallow_clone_gives_the_shipped_history_and_says_why(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", "a")
    repo.commit()
    repo.write("a", "b")
    repo.commit()
    shallow = tmp_path / "shallow"
    repo.git("clone", "--quiet", "--depth=1", f"file://{repo.path}", str(shallow))
    history, commits = await read(shallow)
    assert isinstance(history, ShippedHistory)
    assert "shallow clone" in history.notice
    assert f"git -C {shallow} fetch --unshallow" in history.notice
    assert "--repo" in history.notice
    assert len(commits) == history.total >= 50


async def test_an_export_without_history_gives_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "_PROJECT", tmp_path)
    history = await choose_history(None, 3)
    assert isinstance(history, ShippedHistory)
    assert "without its git history" in history.notice
    assert history.total == 3


async def test_a_repository_without_commits_gives_the_shipped_history(repo: Repo) -> None:
    history = await choose_history(repo.path, None)
    assert "no commit yet" in history.notice


async def test_what_is_no_repository_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no folder"):
        await choose_history(tmp_path / "nowhere", None)
    with pytest.raises(CommandError, match="is not a git repository") as caught:
        await choose_history(tmp_path, None)
    assert caught.value.exit_code == 2


async def test_without_git_it_says_so(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repo.path))
    with pytest.raises(CommandError, match="git is not installed"):
        await choose_history(repo.path, None)


async def test_a_missing_tree_is_an_error_and_not_a_short_history(repo: Repo) -> None:
    repo.write("sub/a", "a")
    repo.commit()
    repo.write("sub/a", "b")
    repo.commit()
    repo.remove_blob("HEAD~1:sub")
    with pytest.raises(CommandError, match="git cannot read the history"):
        await read(repo.path)
