"""Fields written by hand are those that the protobuf library writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import stream_pb2 as pb
from protos.wire import delimited, delimited_header, varint, varint_field


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_a_message_joined_by_hand_is_the_librarys(sequence: int, cursor: bytes) -> None:
    event = pb.StreamedEvent(sequence=sequence, cursor=cursor)
    body = varint_field(pb.StreamedEvent.SEQUENCE_FIELD_NUMBER, sequence)
    if cursor:
        body += delimited(pb.StreamedEvent.CURSOR_FIELD_NUMBER, cursor)
    assert body == event.SerializeToString()
    assert delimited(1, body) == delimited_header(1, len(body)) + body
    assert delimited(pb.Events.EVENTS_FIELD_NUMBER, body) == pb.Events(events=[event]).SerializeToString()


def test_defaults_are_left_out_and_varints_are_short() -> None:
    assert varint_field(7, 0) == b""
    assert varint(0) == b"\x00"
    assert varint(127) == b"\x7f"
    assert varint(300) == b"\xac\x02"
