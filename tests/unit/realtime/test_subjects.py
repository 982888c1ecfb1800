"""Which subjects a filter's events stand under: never fewer than it matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import stream_format as fmt
from realtime.entry import Entry
from realtime.filters import Filter
from realtime.memberships import Memberships
from realtime.subjects import MAX_SUBJECTS, subjects_of

WORKSPACES, KINDS, ENTITIES = ("w1", "w2"), ("note", "user"), ("e1", "e2")


@pytest.mark.parametrize(
    ("wanted", "subjects"),
    [
        (Filter(), None),
        (Filter(entities=frozenset(str(at) for at in range(MAX_SUBJECTS))), None),
        (Filter(kinds=frozenset({"note"})), ["zephyr.0.*.note.*.*", "zephyr.0._.note._.*"]),
        (Filter(entities=frozenset({"e"})), ["zephyr.0.*.*.e.*", "zephyr.0._.*._.*"]),
        (
            Filter(frozenset({"w"}), frozenset({"note"}), frozenset({"e"})),
            ["zephyr.0._.note._.*", "zephyr.0.w.note.e.*"],
        ),
        (
            Filter(workspaces=frozenset({"w"})),
            ["zephyr.0._.*._.*", "zephyr.0._.user.*.*", "zephyr.0.w.*.*.*"],
        ),
    ],
)
def test_subjects(wanted: Filter, subjects: list[str] | None) -> None:
    assert subjects_of(wanted) == subjects


def some(values: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


def is_under(subject: str, pattern: str) -> bool:
    tokens = zip(subject.split("."), pattern.split("."), strict=True)
    return all(wanted in ("*", token) for token, wanted in tokens)


@given(
    st.builds(Filter, some(WORKSPACES), some(KINDS), some(ENTITIES)),
    st.sampled_from((*WORKSPACES, fmt.NONE)),
    st.sampled_from(KINDS),
    st.sampled_from(ENTITIES),
    st.booleans(),
)
def test_what_a_filter_matches_stands_under_them(
    wanted: Filter, workspace: str, kind: str, entity: str, truncated: bool
) -> None:
    memberships = Memberships()
    memberships._of_user = {entity: dict.fromkeys(WORKSPACES, 1)}
    if truncated or kind == "user":
        workspace = fmt.NONE
    subject = fmt.Subject(workspace, kind, fmt.NONE if truncated else entity)
    verb = fmt.TRUNCATED if truncated else fmt.UPDATED
    subjects = subjects_of(wanted)
    if subjects is not None and wanted.matches(Entry(1, 1, subject, verb, None, b"", b""), memberships):
        assert any(is_under(str(subject), pattern) for pattern in subjects)
