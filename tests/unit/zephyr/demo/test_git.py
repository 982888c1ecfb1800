"""Histories read from real repositories that real git made."""

from __future__ import annotations

import pytest

from tests.fixtures.repo import Repo
from tests.unit.zephyr.demo.commits import POEM, actions, notes_after, read
from zephyr.console import CommandError


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


async def test_a_missing_tree_is_an_error_and_not_a_short_history(repo: Repo) -> None:
    repo.write("sub/a", "a")
    repo.commit()
    repo.write("sub/a", "b")
    repo.commit()
    repo.remove_blob("HEAD~1:sub")
    with pytest.raises(CommandError, match="git cannot read the history"):
        await read(repo.path)
