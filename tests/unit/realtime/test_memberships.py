"""Memberships: who is reached by a user's event, at the live edge and later."""

from __future__ import annotations

import pytest

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime import memberships as module
from realtime.entry import Entry
from realtime.memberships import Memberships


def row(sequence: int, verb: str, workspace: str = "w", membership: str = "m", user: str = "u") -> Entry:
    event = Event()
    event.membership.user_id = user
    subject = fmt.Subject(workspace, "membership", membership)
    return Entry(sequence, sequence, subject, verb, None, event.SerializeToString(), b"")


def after(*entries: Entry) -> Memberships:
    result = Memberships()
    for entry in entries:
        result.begin([entry])
        result.end([entry])
    return result


def test_a_member_is_reached_until_the_end_and_no_longer() -> None:
    joined, left = row(5, fmt.CREATED), row(9, fmt.DELETED)
    assert set(after(joined).workspaces_of("u")) == {"w"}
    assert after(joined).includes("w", "u", 100)
    ended = after(joined, left)
    assert list(ended.workspaces_of("u")) == []
    assert ended.includes("w", "u", 9)
    assert not ended.includes("w", "u", 10)
    assert not ended.includes("other", "u", 1)


def test_two_memberships_of_one_workspace_count_as_long_as_one_is_left() -> None:
    both = (row(1, fmt.CREATED, membership="a"), row(2, fmt.CREATED, membership="b"))
    assert after(*both, row(3, fmt.DELETED, membership="a")).includes("w", "u", 10)
    gone = after(*both, row(3, fmt.DELETED, membership="a"), row(4, fmt.DELETED, membership="b"))
    assert not gone.includes("w", "u", 5)


def test_an_update_repeats_and_a_new_user_replaces() -> None:
    assert after(row(1, fmt.CREATED), row(2, fmt.UPDATED), row(3, fmt.DELETED)).includes("w", "u", 3)
    other = after(row(1, fmt.CREATED), row(2, fmt.UPDATED, user="v"))
    assert other.includes("w", "v", 9)
    assert not other.includes("w", "u", 9)


def test_a_move_ends_here_and_begins_there() -> None:
    moved = after(row(1, fmt.CREATED), row(2, fmt.LEFT), row(3, fmt.ENTERED, workspace="x"))
    assert set(moved.workspaces_of("u")) == {"x"}
    assert moved.includes("w", "u", 2)
    assert not moved.includes("w", "u", 3)


def test_domain_events_make_and_end_no_membership() -> None:
    subject = fmt.Subject("w", "membership", "m", "event")
    for verb in fmt.ROW_VERBS:
        event = Event()
        event.membership.user_id = "u"
        posing = Entry(6, 6, subject, verb, None, event.SerializeToString(), b"")
        assert list(after(posing).workspaces_of("u")) == []
        assert not after(posing).includes("w", "u", 6)
        assert list(after(row(5, fmt.CREATED), posing).workspaces_of("u")) == ["w"]


def test_truncate_ends_all() -> None:
    truncated = row(7, fmt.TRUNCATED, workspace=fmt.NONE, membership=fmt.NONE)
    gone = after(row(1, fmt.CREATED), row(2, fmt.CREATED, "x", "n", "v"), truncated)
    assert not gone.includes("w", "u", 8)
    assert not gone.includes("x", "v", 8)
    assert gone.includes("x", "v", 7)


def test_an_end_whose_beginning_was_not_seen_still_counts() -> None:
    ended = after(row(9, fmt.DELETED))
    assert ended.includes("w", "u", 9)
    assert not ended.includes("w", "u", 10)


def test_in_one_transaction_beginnings_come_before_and_ends_after() -> None:
    run = [row(1, fmt.CREATED), row(3, fmt.DELETED)]
    memberships = Memberships()
    memberships.begin(run)
    assert memberships.includes("w", "u", 2)
    memberships.end(run)
    assert not memberships.includes("w", "u", 4)


def test_a_payload_that_cannot_be_read_changes_nothing() -> None:
    subject = fmt.Subject("w", "membership", "m")
    bad = Entry(1, 1, subject, fmt.CREATED, None, b"\xff", b"")
    assert not after(bad, row(2, fmt.UPDATED, user="")).includes("w", "", 1)


def test_the_ended_ones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDED_KEPT", 10)
    ended = after(*(row(at, fmt.DELETED, membership=str(at), user=str(at)) for at in range(1, 100)))
    assert len(ended._ended) == 10
    assert ended.includes("w", "99", 99)
