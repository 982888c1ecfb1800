"""Commits as transactions, and the events that they give."""

from __future__ import annotations

from uuid import UUID, uuid4

from zephyr.demo import sql
from zephyr.demo.history import Action, CommitChanges, FileChange
from zephyr.demo.plan import Plan, Transaction, User, address

WORKSPACE = UUID("11111111-1111-4111-8111-111111111111")


def commit(*changes: FileChange, email: str = "a@x", name: str = "Ada") -> CommitChanges:
    return CommitChanges("c0ffee", name, email, "message", list(changes))


def kinds(transaction: Transaction) -> list[tuple[str, str, int]]:
    return [(event.kind, event.verb, event.version) for event in transaction.events]


def test_a_note_from_its_add_to_its_delete() -> None:
    plan = Plan(WORKSPACE, "slug", "name")
    add = plan.transaction(commit(FileChange(Action.ADD, 1, "a", "text")))
    assert kinds(add) == [("user", "created", 1), ("membership", "created", 1), ("note", "created", 1)]
    modify = plan.transaction(commit(FileChange(Action.MODIFY, 1, "a", "more")))
    assert kinds(modify) == [("note", "updated", 2)]
    rename = plan.transaction(commit(FileChange(Action.RENAME, 1, "b", None, "a")))
    assert rename.statements[0][0] == sql.RENAME_NOTE
    delete = plan.transaction(commit(FileChange(Action.DELETE, 1, "b")))
    assert kinds(delete) == [("note", "deleted", 3)]
    assert {one.events[-1].entity_id for one in (add, modify, rename, delete)} == {add.events[-1].entity_id}


def test_one_address_is_one_user_who_may_change_name() -> None:
    plan = Plan(WORKSPACE, "slug", "name")
    plan.transaction(commit(email=" Ada@X "))
    assert plan.is_known(commit(email="ada@x"))
    assert kinds(plan.transaction(commit(email="ada@x"))) == []
    assert kinds(plan.transaction(commit(email="ada@x", name="Ada L."))) == [("user", "updated", 2)]


def test_a_user_of_an_earlier_run_becomes_a_member_and_then_changes() -> None:
    plan = Plan(WORKSPACE, "slug", "name")
    first = plan.transaction(commit(), User(uuid4(), "Countess", 7))
    assert kinds(first) == [("membership", "created", 1), ("user", "updated", 8)]


def test_an_address_too_long_for_an_index_stays_an_address_of_its_own() -> None:
    one, other = (address(commit(email=f"{'x' * 3000}{end}")) for end in "ab")
    assert one != other
    assert len(one.encode()) < 512
