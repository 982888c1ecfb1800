"""Histories that branch and merge, put in a line: after HEAD the notes are HEAD's files."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from zephyr.demo.tree import Action, Missing, RawChange, TooLarge, Tree

Files = dict[bytes, str]
PATHS = [b"a", b"b", b"c", b"d", b"e"]
BLOBS = ["1", "2", "3", "binary"]


async def blob(identity: str, _limit: int) -> bytes | Missing | TooLarge:
    return b"\0" if identity == "binary" else identity.encode()


def compare(old: Files, new: Files) -> list[RawChange]:
    """What git says of two trees, exact renames found."""
    gone = {path: text for path, text in old.items() if path not in new}
    changes = []
    for path, text in sorted(new.items()):
        if path in old:
            if old[path] != text:
                changes.append(RawChange("M", path, None, "100644", text))
            continue
        source = next((place for place, held in gone.items() if held == text), None)
        if source is not None:
            del gone[source]
        changes.append(RawChange("A" if source is None else "R", path, source, "100644", text))
    return changes + [RawChange("D", path, None, "000000", "0") for path in gone]


@given(st.integers(0, 2**32), st.integers(1, 25))
async def test_after_head_the_notes_are_the_files_of_head(seed: int, size: int) -> None:
    # One seed and not many draws: a history is large, and only its randomness matters.
    rng = random.Random(seed)
    trees: list[Files] = []
    heads: set[int] = set()
    tree = Tree()
    notes: dict[int, tuple[str, str | None]] = {}
    for number in range(size):
        if number == size - 1:
            parents = sorted(heads)
        else:
            parents = sorted(rng.sample(range(number), min(number, rng.choice([0, 1, 1, 1, 2]))))
        files: Files = {path: rng.choice(BLOBS) for path in PATHS if rng.random() < 0.5}
        for parent in parents:
            files |= {path: text for path, text in trees[parent].items() if rng.random() < 0.7}
        changes = [
            change
            for parent in parents or [-1]
            for change in compare(trees[parent] if parents else {}, files)
        ]
        heads = (heads - set(parents)) | {number}
        trees.append(files)
        for change in await tree.apply(changes, blob):
            if change.action is Action.ADD:
                assert change.note not in notes
                notes[change.note] = change.path, change.text
                continue
            path, text = notes.pop(change.note)
            assert path == (change.old_path or change.path)
            if change.action is not Action.DELETE:
                notes[change.note] = change.path, text if change.text is None else change.text
    expected = {path.decode(): text for path, text in trees[-1].items() if text != "binary"}
    assert sorted(notes.values()) == sorted(expected.items())


def change(status: str, path: bytes, text: str = "0", source: bytes | None = None) -> RawChange:
    return RawChange(status, path, source, "100644", text)


async def test_a_rename_onto_a_path_that_is_there_deletes_that_first() -> None:
    tree = Tree()
    await tree.apply([change("A", b"a", "1"), change("A", b"b", "2")], blob)
    done = await tree.apply([change("R", b"b", "1", b"a")], blob)
    assert [(one.action, one.note, one.path) for one in done] == [
        (Action.DELETE, 2, "b"),
        (Action.RENAME, 1, "b"),
    ]


async def test_a_rename_of_what_is_not_there_is_an_add() -> None:
    done = await Tree().apply([change("R", b"b", "1", b"a")], blob)
    assert [(one.action, one.path, one.text) for one in done] == [(Action.ADD, "b", "1")]


async def test_deleting_what_is_not_there_and_the_same_content_give_nothing() -> None:
    tree = Tree()
    await tree.apply([change("A", b"a", "1")], blob)
    assert await tree.apply([change("D", b"x"), change("M", b"a", "1")], blob) == []


async def test_a_file_that_is_passed_over_is_counted_once() -> None:
    tree = Tree()
    for _ in range(3):
        assert await tree.apply([change("M", b"a", "binary")], blob) == []
    assert tree.skipped == {"binary": 1}
