"""Which history is taken for a folder: a repository's own, the shipped one with a notice, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.repo import Repo
from tests.unit.zephyr.demo.commits import notes_after, read
from zephyr.console import CommandError
from zephyr.demo import history as history_module
from zephyr.demo.history import ShippedHistory, choose_history


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
