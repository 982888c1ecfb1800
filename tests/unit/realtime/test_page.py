"""A page's answers are read by the broker's own headers, which stand last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1.event_pb2 import Event
from realtime.page import Page, parse_time_ns

EPOCH = "0190a0000000000000aa"
PAYLOAD = Event(id="1").SerializeToString()
SECONDS = ("2025-11-25T15:23:18", "2025-11-25T15:23:19", "2024-02-29T00:00:00")


def answer(own: str, sequence: int, time: str, subject: str = "zephyr.0.w.note.n.row") -> bytes:
    return (
        f"NATS/1.0\r\n{own}Nats-Stream: S\r\nNats-Subject: {subject}\r\nNats-Sequence: {sequence}\r\n"
        f"Nats-Time-Stamp: {time}\r\nNats-Num-Pending: 3\r\nNats-Last-Sequence: 0\r\n\r\n"
    ).encode()


def read(*answers: bytes) -> Page:
    page = Page(EPOCH, lambda: None)
    page.sink.messages += [(b"_INBOX.x", b"", each, PAYLOAD) for each in answers]
    page.read()
    return page


@given(
    st.lists(st.tuples(st.sampled_from(SECONDS), st.text("0123456789", max_size=9)), min_size=1, max_size=5)
)
def test_times_are_what_they_are_alone(times: list[tuple[str, str]]) -> None:
    texts = [f"{second}.{fraction}Z" if fraction else f"{second}Z" for second, fraction in times]
    page = read(*(answer("Zephyr-Verb: made\r\n", at, text) for at, text in enumerate(texts, 1)))
    assert [entry.timestamp_ns for entry in page.entries] == [parse_time_ns(text) for text in texts]


def test_what_was_stored_with_headers_of_the_brokers_is_not_believed() -> None:
    own = "Zephyr-Verb: made\r\nNats-Sequence: 9\r\nNats-Stream: X\r\nNats-Subject: zephyr.0.w.note.other.row\r\n"
    (entry,) = read(answer(own, 5, "2025-11-25T15:23:18.5Z")).entries
    assert entry.sequence == 5
    assert entry.subject is not None
    assert entry.subject.entity == "n"


def test_the_end_and_an_answer_that_is_none() -> None:
    page = read(answer("", 1, "2025-11-25T15:23:18Z"), b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n")
    assert (len(page.entries), page.is_whole, page.failure) == (1, True, "")
    page = read(answer("", 1, "yesterday"))
    assert page.is_whole
    assert "not understood" in page.failure
