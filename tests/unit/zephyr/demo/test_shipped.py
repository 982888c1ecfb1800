"""The history that comes along holds together, and has a bit of everything."""

from __future__ import annotations

import pytest

from zephyr.demo.history import Action, ShippedHistory
from zephyr.demo.shipped import ShippedReader, read_lines


async def test_it_has_a_bit_of_everything() -> None:
    history = ShippedHistory(None, "why")
    commits = [commit async for commit in history.commits()]
    assert len(commits) == history.total == 60
    changes = [change for commit in commits for change in commit.changes]
    assert {change.action for change in changes} == set(Action)
    assert any(change.text == "" for change in changes)
    assert any(change.action is Action.RENAME and change.text for change in changes)
    assert any(not commit.changes for commit in commits)
    assert any(not change.path.isascii() for change in changes)
    names: dict[str, set[str]] = {}
    for commit in commits:
        names.setdefault(commit.author_email.lower(), set()).add(commit.author_name)
    assert len(names) >= 4
    assert any(len(of_one) == 2 for of_one in names.values())


def test_each_line_has_the_documented_form() -> None:
    for line in read_lines():
        assert set(line) == {"name", "email", "message", "changes"}
        for change in line["changes"]:
            assert len({"add", "modify", "rename", "delete"} & set(change)) == 1


@pytest.mark.parametrize(
    "change", [{"modify": "a", "text": ""}, {"delete": "a"}, {"rename": "b", "from": "a"}]
)
def test_a_change_of_what_is_not_there_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a is not there"):
        list(ShippedReader().changes({"changes": [change]}))
