"""A stored message as the server keeps it; what is foreign is internal and raises nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.cursor import Cursor
from realtime.entry import FOREIGN, make_entry, read_entry

EPOCH = "0190a0000000000000aa"
SUBJECT = "zephyr.0.w.note.n.row"
HEADERS = {fmt.VERB: "updated", fmt.COMMIT: "16B3748/3/4"}
EVENT = Event(id="1.2.3", type="note.updated")


def test_its_frame_is_a_streamed_event() -> None:
    entry = make_entry(EPOCH, SUBJECT, HEADERS, EVENT.SerializeToString(), 7, 70)
    (streamed,) = pb.Events.FromString(entry.frame).events
    assert streamed == pb.StreamedEvent(sequence=7, cursor=Cursor(EPOCH, 7, 70).encode(), event=EVENT)
    assert entry.subject == fmt.Subject("w", "note", "n")
    assert entry.commit == fmt.CommitPlace(0x16B3748, 3, 4)
    assert not entry.is_internal


@pytest.mark.parametrize("subject", [fmt.OWNER_SUBJECT, fmt.POSITION_SUBJECT])
def test_marks_are_internal(subject: str) -> None:
    entry = make_entry(EPOCH, subject, {}, b"anything", 1, 1)
    assert (entry.is_internal, entry.verb, entry.frame) == (True, subject.rsplit(".", 1)[1], b"")


def test_a_producer_chooses_its_id_and_no_more() -> None:
    entry = make_entry(EPOCH, "zephyr._mark.0.producer.position", {}, b"", 1, 1)
    assert (entry.is_internal, entry.verb) == (True, "producer")


@pytest.mark.parametrize(
    ("verb", "type_"),
    [("updated", "note.shared"), ("shared", "note.updated"), ("truncated", "note.truncated")],
)
def test_a_domain_event_says_nothing_of_a_row(verb: str, type_: str) -> None:
    payload = Event(id="p.1", type=type_).SerializeToString()
    entry = make_entry(EPOCH, "zephyr.0.w.note.n.event", {fmt.VERB: verb}, payload, 7, 70)
    assert (entry.is_internal, entry.verb, entry.frame) == (True, FOREIGN, b"")


def test_only_the_bridge_gives_a_place_in_a_transaction() -> None:
    subject, payload = "zephyr.0.w.note.n.event", Event(id="p.1", type="note.shared").SerializeToString()
    headers = {fmt.VERB: "shared", fmt.COMMIT: "16B3748/3"}
    for fence, place in (
        ({}, None),
        ({fmt.FENCE_SUBJECT: "zephyr._mark.0.producer.p"}, None),
        ({fmt.FENCE_SUBJECT: fmt.OWNER_SUBJECT}, fmt.CommitPlace(0x16B3748, 3)),
    ):
        given = headers | fence
        raw = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\n"
        made = make_entry(EPOCH, subject, given, payload, 7, 70)
        read = read_entry(EPOCH, subject.encode(), raw.encode(), payload, 7, 70)
        assert (made.commit, read.commit) == (place, place)
        assert made.payload == read.payload == payload


def test_a_domain_event_is_delivered() -> None:
    payload = Event(id="p.1", type="note.shared").SerializeToString()
    entry = make_entry(EPOCH, "zephyr.0.w.note.n.event", {fmt.VERB: "shared"}, payload, 7, 70)
    assert (entry.verb, entry.commit, entry.payload) == ("shared", None, payload)


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        ("zephyr.0.w.note.n", HEADERS),
        ("zephyr.0.w.note.n.other", HEADERS),
        ("zephyr.x", HEADERS),
        (SUBJECT, {}),
        (SUBJECT, {fmt.VERB: ""}),
        (SUBJECT, {fmt.VERB: "made", fmt.COMMIT: "1"}),
        (SUBJECT, {fmt.VERB: "made", fmt.COMMIT: "x/y/z"}),
    ],
)
def test_what_is_not_of_the_format_is_foreign(subject: str, headers: dict[str, str]) -> None:
    entry = make_entry(EPOCH, subject, headers, b"", 1, 1)
    assert (entry.is_internal, entry.verb, entry.frame) == (True, FOREIGN, b"")


def test_a_payload_that_cannot_be_read_leaves_the_place() -> None:
    entry = make_entry(EPOCH, SUBJECT, HEADERS, b"\xff", 7, 70)
    (streamed,) = pb.Events.FromString(entry.frame).events
    assert streamed.sequence == 7
    assert not streamed.HasField("event")


@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from(("zephyr", "_mark", "0", "w", "row")), max_size=7).map(".".join)
    ),
    st.dictionaries(st.sampled_from((fmt.VERB, fmt.COMMIT, "x")), st.text()),
    st.binary(),
)
def test_nothing_raises(subject: str, headers: dict[str, str], payload: bytes) -> None:
    entry = make_entry(EPOCH, subject, headers, payload, 1, 1)
    pb.Events.FromString(entry.frame)


@given(
    st.sampled_from(("updated", "created", "", " read ")),
    st.sampled_from(("", "16B3748/3", "16B3748/3/4", "x")),
    st.sampled_from(("", "title", "title, body")),
    st.sampled_from(((), ("Zephyr-Id: 1",), ("X: Zephyr-Verb: left", "Zephyr-Verbs: left"))),
    st.binary(max_size=8) | st.just(EVENT.SerializeToString()),
)
def test_headers_as_bytes_say_the_same(
    verb: str, commit: str, changed: str, others: tuple[str, ...], payload: bytes
) -> None:
    named = {fmt.VERB: verb, fmt.COMMIT: commit, fmt.CHANGED: changed}
    lines = ["NATS/1.0", *others, *(f"{name}: {value}" for name, value in named.items() if value), "", ""]
    raw = read_entry(EPOCH, SUBJECT.encode(), "\r\n".join(lines).encode(), payload, 7, 70)
    headers = {name: value.strip() for name, value in named.items() if value}
    made = make_entry(EPOCH, SUBJECT, headers, payload, 7, 70)
    for field in (
        "sequence",
        "timestamp_ns",
        "subject",
        "verb",
        "commit",
        "frame",
        "changed",
        "payload",
        "kept",
    ):
        assert getattr(raw, field) == getattr(made, field), field


def test_it_knows_the_fields_that_an_update_changed() -> None:
    headers = HEADERS | {fmt.CHANGED: "title,version"}
    assert make_entry(EPOCH, SUBJECT, headers, b"", 7, 70).changed == ("title", "version")
    assert make_entry(EPOCH, SUBJECT, HEADERS, b"", 7, 70).changed == ()
    assert make_entry(EPOCH, SUBJECT, headers | {fmt.VERB: "created"}, b"", 7, 70).changed == ()
