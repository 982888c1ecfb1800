"""The client counts its credit as the server does, byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import stream_pb2 as pb
from protos.wire import delimited, delimited_header, varint_field
from realtime.client.window import CreditWindow, Owed, charged

_EVENTS = pb.SubscribeResponse.EVENTS_FIELD_NUMBER
_PAGE = pb.SubscribeResponse.SNAPSHOT_PAGE_FIELD_NUMBER

bodies = st.lists(st.binary(max_size=300), min_size=1, max_size=20)


def _entry(body: bytes) -> bytes:
    """As the server joins it: with a default that an encoder would leave out."""
    event = delimited(3, body) + b"\x28\x00"
    return delimited(1, pb.StreamedEvent(sequence=1 + len(body)).SerializeToString() + delimited(3, event))


@given(bodies, st.booleans(), st.sampled_from([_EVENTS, _PAGE]), st.binary(max_size=100))
def test_the_bytes_are_those_of_the_entries(
    texts: list[bytes], flag: bool, field: int, cursor: bytes
) -> None:
    parts = [_entry(text.hex().encode()) for text in texts]
    size = sum(map(len, parts))
    tail = varint_field(2, flag)
    head = pb.SubscribeResponse(
        subscription_id="s", cursor=cursor, coverage=pb.Coverage(after=1, through=1 << 40)
    )
    data = head.SerializeToString() + delimited_header(field, size + len(tail)) + b"".join(parts) + tail
    frame = pb.SubscribeResponse.FromString(data)
    assert charged(data, frame) == (len(texts), size)


def test_other_frames_cost_nothing() -> None:
    frame = pb.SubscribeResponse(subscription_id="s", progress=pb.Progress(nonce="n"))
    assert charged(frame.SerializeToString(), frame) == (0, 0)


def test_it_is_granted_again_in_halves() -> None:
    owed = Owed(CreditWindow(10, 1000))
    assert not owed.add(4, 100)
    assert owed.add(1, 100)
    assert owed.take() == pb.Credit(messages=5, bytes=200)
    assert not owed.add(1, 499)
    assert owed.add(1, 1)
    assert owed.take() == pb.Credit(messages=2, bytes=500)
