"""What a scope leaves of a filter, and the policy that a setting names."""

from __future__ import annotations

import pytest

from realtime.auth import AllowAll, Scope
from realtime.auth.load import load_policy
from realtime.auth.scope import narrow
from realtime.errors import LimitExceeded, PermissionDenied, SettingInvalid
from realtime.filters import Filter

W = frozenset(("a", "b"))


@pytest.mark.parametrize(
    ("asked", "scope", "left"),
    [
        (Filter(), Scope(), Filter()),
        (Filter(W), Scope(), Filter(W)),
        (Filter(), Scope(W), Filter(W)),
        (Filter(W), Scope(frozenset("b")), Filter(frozenset("b"))),
        (Filter(kinds=frozenset(("note",))), Scope(W), Filter(W, frozenset(("note",)))),
        (Filter(), Scope(kinds=frozenset(("note",))), Filter(kinds=frozenset(("note",)))),
        (
            Filter(W, verbs=frozenset("v")),
            Scope(frozenset("a")),
            Filter(frozenset("a"), verbs=frozenset("v")),
        ),
    ],
)
def test_what_is_left(asked: Filter, scope: Scope, left: Filter) -> None:
    assert narrow(asked, asked, scope) == left


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        (Filter(W), Scope(frozenset("c"))),
        (Filter(), Scope(frozenset())),
        (Filter(), Scope(kinds=frozenset())),
        (Filter(kinds=frozenset(("note", "user"))), Scope(kinds=frozenset(("note",)))),
    ],
)
def test_what_is_refused(asked: Filter, scope: Scope) -> None:
    with pytest.raises(PermissionDenied):
        narrow(asked, asked, scope)


def test_it_never_gets_wider_and_stays_itself_when_nothing_changed() -> None:
    current = Filter(frozenset("a"))
    assert narrow(Filter(W), current, Scope(W)) is current
    assert narrow(Filter(), Filter(W), Scope()).workspaces == W


def test_a_scope_of_too_many_workspaces_cannot_stand_for_all() -> None:
    many = frozenset(map(str, range(1001)))
    with pytest.raises(LimitExceeded, match="1001 combinations"):
        narrow(Filter(), Filter(), Scope(many))
    assert narrow(Filter(W), Filter(W), Scope(many | W)).workspaces == W


def test_the_policy_that_a_setting_names() -> None:
    assert isinstance(load_policy(""), AllowAll)
    assert isinstance(load_policy("realtime.auth.policy:AllowAll"), AllowAll)
    for name, cause in (
        ("nowhere:Policy", "No module named 'nowhere'"),
        ("realtime.auth.policy:Nobody", "Nobody"),
        ("realtime.auth.policy", "''"),
        ("realtime.auth.policy:Scope", r"no authenticate\(\)"),
    ):
        with pytest.raises(SettingInvalid, match=cause):
            load_policy(name)
