"""Filters: the hub's keys find exactly what ``matches`` says, and what cannot be is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.entry import Entry, make_entry
from realtime.errors import ArgumentInvalid, LimitExceeded
from realtime.filters import Filter, compile_filter
from realtime.hub import Hub
from realtime.limits import MailboxLimits
from realtime.memberships import Memberships
from realtime.subscriber import Subscriber
from realtime.terms import Terms

KINDS = ("note", "user", "workspace")
A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SUBJECTS = st.builds(
    fmt.Subject,
    st.sampled_from((A, B, fmt.NONE)),
    st.sampled_from((*KINDS, "membership")),
    st.sampled_from(("x", "y", fmt.NONE)),
)
FILTERS = st.builds(
    Filter,
    st.frozensets(st.sampled_from((A, B))),
    st.frozensets(st.sampled_from(KINDS)),
    st.frozensets(st.sampled_from(("x", "y"))),
    st.frozensets(st.sampled_from((fmt.UPDATED, fmt.DELETED))),
    st.frozensets(st.sampled_from(("title", "body"))),
)


def joined(workspace: str, user: str) -> Entry:
    event = Event()
    event.membership.user_id = user
    subject = fmt.Subject(workspace, "membership", f"{workspace}-{user}")
    return Entry(1, 1, subject, fmt.CREATED, None, event.SerializeToString(), b"")


def told(sequence: int, subject: fmt.Subject | None, verb: str, changed: tuple[str, ...]) -> Entry:
    if subject is None:
        return Entry(sequence, sequence, None, verb, None, b"", b"")
    headers = {fmt.VERB: verb, fmt.CHANGED: ",".join(changed)}
    return make_entry("0190a0000000000000aa", str(subject), headers, b"", sequence, sequence)


@given(
    FILTERS,
    st.one_of(st.none(), SUBJECTS),
    st.sampled_from((fmt.UPDATED, fmt.DELETED, fmt.TRUNCATED)),
    st.sampled_from(((), ("title",), ("body", "version"))),
    st.lists(st.tuples(st.sampled_from((A, B)), st.sampled_from(("x", "y"))), max_size=3),
)
def test_the_live_edge_and_a_catch_up_agree(
    wanted: Filter,
    subject: fmt.Subject | None,
    verb: str,
    changed: tuple[str, ...],
    members: list[tuple[str, str]],
) -> None:
    hub = Hub()
    memberships = Memberships()
    begins = [joined(*member) for member in members]
    hub.memberships.begin(begins)
    memberships.begin(begins)
    subscriber = Subscriber("s", Terms(wanted), MailboxLimits())
    hub.attach(subscriber)
    entry = told(1, subject, verb, changed)
    hub.take([entry])
    assert subscriber.has_frames == wanted.matches(entry, memberships)
    hub.detach(subscriber)
    assert len(hub._index) == 0


def test_it_is_compiled_to_canonical_ids() -> None:
    wanted = compile_filter(
        pb.Filter(
            workspace_ids=[A.upper(), A], kinds=["note", "note"], entity_ids=[B.upper(), "K1", "f" * 32]
        ),
        KINDS,
    )
    assert wanted == Filter(frozenset({A}), frozenset({"note"}), frozenset({B, "K1", "f" * 32}))
    assert compile_filter(pb.Filter(), KINDS) == Filter()
    wanted = compile_filter(
        pb.Filter(verbs=["updated", "archived", "updated"], changed_fields=["title"]), KINDS
    )
    assert wanted == Filter(verbs=frozenset({"updated", "archived"}), changed=frozenset({"title"}))


@pytest.mark.parametrize(
    ("verb", "changed", "is_admitted"),
    [
        (fmt.UPDATED, ("title", "version"), True),
        (fmt.UPDATED, ("body",), False),
        (fmt.UPDATED, (), False),
        (fmt.DELETED, (), True),
        (fmt.CREATED, (), False),
        (fmt.TRUNCATED, (), True),
    ],
)
def test_verbs_and_changed_fields(verb: str, changed: tuple[str, ...], is_admitted: bool) -> None:
    wanted = Filter(verbs=frozenset({fmt.UPDATED, fmt.DELETED}), changed=frozenset({"title"}))
    subject = fmt.Subject(A, "note", "x")
    entry = told(1, subject, verb, changed)
    assert wanted.admits(entry) == is_admitted == wanted.matches(entry, Memberships())
    assert wanted.covers(entry, Memberships())


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Filter(workspace_ids=[A, "{" + A + "}"]), "filter.workspace_ids[1]"),
        (pb.Filter(workspace_ids=["urn:" + "1" * 32]), "filter.workspace_ids[0]"),
        (pb.Filter(kinds=["Note"]), "filter.kinds[0]"),
        (pb.Filter(entity_ids=["x", "a>"]), "filter.entity_ids[1]"),
        (pb.Filter(verbs=["updated", "Updated"]), "filter.verbs[1]"),
        (pb.Filter(verbs=[""]), "filter.verbs[0]"),
        (pb.Filter(changed_fields=["title", "titel"]), "filter.changed_fields[1]"),
    ],
)
def test_what_cannot_be_is_named(message: pb.Filter, field: str) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        compile_filter(message, KINDS)
    assert [violation[0] for violation in caught.value.violations] == [field]


def test_the_product_is_bounded() -> None:
    ids = [f"e{at}" for at in range(1001)]
    compile_filter(pb.Filter(entity_ids=ids[:1000]), KINDS)
    with pytest.raises(LimitExceeded, match=r"filter\.entity_ids has 1001 members"):
        compile_filter(pb.Filter(entity_ids=ids), KINDS)
    with pytest.raises(LimitExceeded, match="1500 combinations"):
        compile_filter(pb.Filter(entity_ids=ids[:750], kinds=["note", "user"]), KINDS)
    with pytest.raises(LimitExceeded, match=r"filter\.verbs has 101 members"):
        compile_filter(pb.Filter(verbs=["updated"] * 101), KINDS)
