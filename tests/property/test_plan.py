"""Messages that are joined by hand are those that protobuf itself would write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.change import Begin
from bridge.context import Context
from bridge.outgoing import Moment
from protos.events.v1.event_pb2 import Event
from protos.wire import varint
from tests.unit.bridge.test_encode import EPOCH, ROW, SYSTEM, encoder, insert, row, update

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
UINT64 = st.integers(0, 2**64 - 1)
TIMES = st.datetimes().map(lambda time: f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond:06d}+00".zfill(29))
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "title": st.none() | TEXT,
        "body": st.none() | TEXT.map(lambda text: text * 100),
        "version": st.none() | st.integers(-(2**63), 2**63 - 1).map(str),
        "created_at": st.none()
        | TIMES
        | st.sampled_from(("infinity", "-infinity", "0044-03-15 12:00:00+00 BC")),
        "updated_at": st.none() | TIMES,
        "metadata": st.sampled_from((None, "{}", '{"a": "b"}', '{"b": 1.50, "a": [1]}', '{"": ""}')),
    },
)


@given(ROWS, ROWS, UINT64, st.integers(-(2**62), 2**62), st.integers(0, 2**32 - 2), st.booleans())
def test_the_bytes_are_protobufs_own(
    old: dict[str, str | None], new: dict[str, str | None], lsn: int, time_us: int, index: int, is_last: bool
) -> None:
    count = index + 1 if is_last else 0
    context = Context("Ada \u00e9", "c-1")
    (draft,) = encoder().encode(insert(None, **new))
    said = draft.plan.message(draft, Moment(Begin(lsn, time_us, 1), f"{SYSTEM}.", context), index, count)
    event = Event.FromString(said.payload)
    assert event.SerializeToString(deterministic=True) == said.payload
    assert (event.actor, event.correlation_id, event.traceparent) == ("Ada \u00e9", "c-1", "")
    for change in (insert(None, **new), update(row(**old), row(**new))):
        (draft,) = encoder().encode(change)
        message = draft.finish(Begin(lsn, time_us, 1), index, count)
        event = Event.FromString(message.payload)
        assert event.SerializeToString(deterministic=True) == message.payload
        assert event.id == message.headers["Zephyr-Id"] == f"{SYSTEM}.{EPOCH}.{lsn:X}.{index}"
        assert (event.commit.lsn, event.commit.index, event.commit.count) == (lsn, index, count)
        assert event.time == time_us
        wanted = {**ROW, **new}
        assert event.note.title == (wanted["title"] or "")
        assert event.note.body == (wanted["body"] or "")
        assert event.note.version == int(str(wanted["version"] or 0))


@given(UINT64)
def test_varint(value: int) -> None:
    data = varint(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data)) == value
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]
    assert len(data) == max(1, -(-value.bit_length() // 7))
