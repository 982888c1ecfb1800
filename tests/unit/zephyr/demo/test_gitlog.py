"""The log's bytes, cut anywhere, give the same commits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.demo.gitlog import LogParser, RawCommit

A, B = "a" * 40, "b" * 40
LOG = (
    f"\x01{A}\0Ada\0ada@x\0one\0\n:000000 100644 {B} {A} A\0:odd\x01name\0"
    f"\x01{B}\0\0\0\0"
    f"\x01{'c' * 40}\0Bob\0\0merge\0\n:100644 100644 {A} {B} R090\0old\0new\0:100644 000000 {A} {B} D\0gone\0"
    f"\x01{'c' * 40}\0Bob\0\0merge\0\n:100644 100644 {A} {B} M\0new\0"
).encode()


def parse(*pieces: bytes) -> list[RawCommit]:
    parser = LogParser()
    commits = [commit for piece in pieces for commit in parser.feed(piece)]
    last = parser.end()
    return commits if last is None else [*commits, last]


def test_a_merge_has_the_changes_against_each_parent() -> None:
    one, empty, merge = parse(LOG)
    assert (one.author_name, one.message) == ("Ada", "one")
    assert one.changes[0].path == b":odd\x01name"
    assert empty.changes == []
    assert [(change.status, change.source, change.path) for change in merge.changes] == [
        ("R", b"old", b"new"),
        ("D", None, b"gone"),
        ("M", None, b"new"),
    ]


@given(st.lists(st.integers(0, len(LOG))))
def test_any_split_gives_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(LOG)]
    pieces = [LOG[begin:end] for begin, end in itertools.pairwise(edges)]
    assert parse(*pieces) == parse(LOG)


def test_what_is_no_log_is_refused() -> None:
    with pytest.raises(ValueError, match="not a token"):
        parse(b"fatal: something\0")
