"""Logical messages that become domain events, and those that say who is behind a transaction."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message as ProtobufMessage
from google.protobuf.wrappers_pb2 import StringValue

from bridge.change import Begin, LogicalMessage, Message, Position
from bridge.context import header_text, read_context
from bridge.encode import Encoder
from bridge.errors import EventRejected
from bridge.ledger import Ledger
from bridge.publish import Publisher
from bridge.pump import Pump
from protos.events.v1 import stream_format as fmt
from protos.events.v1.context_pb2 import TransactionContext
from protos.events.v1.event_pb2 import Event
from protos.events.v1.mark_pb2 import PositionMark
from protos.events.v1.publish_pb2 import NewEvent
from protos.events.v1.rejected_pb2 import DeadLetter, Rejected
from protos.models.v1.note_pb2 import Note
from tests.unit.bridge.model import (
    EPOCH,
    FITTED,
    SYSTEM,
    FakeBroker,
    SourceEnded,
    domain_event,
    insert,
    make_encoder,
    source_of,
    state_of,
)
from tests.unit.bridge.test_pump import Frames, transaction

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LIMIT = 4000


def emitted(
    content: bytes | ProtobufMessage, prefix: str = fmt.EVENT_PREFIX, in_it: bool = True
) -> LogicalMessage:
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return LogicalMessage(prefix, data, 5, in_it)


def said(**more: object) -> NewEvent:
    given: dict[str, object] = {"workspace_id": "w1", "kind": "note", "entity_id": "n1", "verb": "shared"}
    return NewEvent(**(given | more))  # type: ignore[arg-type]


def context(**texts: str) -> LogicalMessage:
    return emitted(TransactionContext(**texts), fmt.CONTEXT_PREFIX)


async def pumped(
    *changes: Message, broker: FakeBroker | None = None, keeps: bool = True
) -> tuple[FakeBroker, list[DeadLetter], Pump]:
    """Pumps one transaction to its end."""
    broker = broker or FakeBroker()
    letters: list[DeadLetter] = []

    async def keep(letter: DeadLetter) -> None:
        letters.append(letter)

    publisher = Publisher(broker, state_of(broker), source_of(0x10_000))
    await publisher.write_first_position()
    await publisher.begin_term()
    await publisher.mark(Position(0, 0), 0x100, 0)
    frames = Frames(transaction(0x200, *changes))
    pump = Pump(frames, make_encoder(LIMIT), publisher, Ledger(0), None, 0x100, 1e9, keep if keeps else None)
    with pytest.raises(SourceEnded):
        await pump.run()
    return broker, letters, pump


async def test_it_stands_in_its_transaction() -> None:
    note = Note(id="n1", title="t")
    message = emitted(said(note=note, actor="Ada", time=0x100))
    broker, letters, _ = await pumped(insert("a"), message, insert("b"))
    before, stored, after = broker.events
    assert (before.headers[fmt.COMMIT], after.headers[fmt.COMMIT]) == ("200/0", "200/2/3")
    assert stored.subject == "zephyr.0.w1.note.n1.event"
    event = Event.FromString(stored.payload)
    assert event.id == stored.headers[fmt.ID] == f"{SYSTEM}.{EPOCH}.200.1"
    assert (event.type, event.subject, event.workspace_id) == ("note.shared", "n1", "w1")
    assert event.source == f"/postgres/{SYSTEM}/app/zephyr.event"
    assert (event.commit.lsn, event.commit.index, event.commit.count) == (0x200, 1, 0)
    assert (event.note, event.actor, event.time) == (note, "Ada", 0x100)
    assert event.data_schema == stored.headers[fmt.SCHEMA]
    assert event.data_schema.startswith("zephyr.models.v1.Note/")
    assert stored.headers[fmt.COMMIT] == "200/1"
    assert (stored.headers[fmt.VERB], stored.headers[fmt.ACTOR]) == ("shared", "Ada")
    assert not letters


async def test_a_transaction_of_it_alone_is_stored_with_its_mark() -> None:
    broker, _, _ = await pumped(domain_event("n1"))
    assert [each.headers[fmt.COMMIT] for each in broker.events] == ["200/0/1"]
    mark = broker.everything[-1]
    assert mark.subject == fmt.POSITION_SUBJECT
    found = PositionMark.FromString(mark.payload)
    assert (found.commit_lsn, found.index, found.complete) == (0x200, 0, True)
    # It happened when it was committed, and says of no schema what it has not.
    event = Event.FromString(broker.events[0].payload)
    assert event.time == 0x200
    assert fmt.SCHEMA not in broker.events[0].headers


async def test_a_long_transaction_with_them_goes_in_batches() -> None:
    changes = [domain_event("n1") if number % 100 == 0 else insert("a") for number in range(2500)]
    broker, _, _ = await pumped(*changes)
    places = [fmt.parse_commit(each.headers[fmt.COMMIT]) for each in broker.events]
    assert [place.index for place in places] == list(range(2500))
    assert places[-1].count == 2500
    # Behind each domain event that is stored stands a mark that covers it.
    last_event = max(each.sequence for each in broker.events if each.subject.endswith(".event"))
    marks = [each for each in broker.everything if each.subject == fmt.POSITION_SUBJECT]
    assert marks[-1].sequence > last_event


async def test_the_json_form() -> None:
    text = json.dumps(
        {"workspaceId": "w1", "kind": "note", "entity_id": "n1", "verb": "shared", "note": {"title": "é"}}
    )
    broker, _, _ = await pumped(emitted(text.encode()))
    assert Event.FromString(broker.events[0].payload).note.title == "é"


async def test_a_workspace_is_written_as_postgres_does() -> None:
    upper = "1111AAAA-1111-4111-8111-111111111111"
    broker, _, _ = await pumped(emitted(said(workspace_id=upper)), emitted(said(workspace_id="_")))
    assert [each.subject.split(".")[2] for each in broker.events] == [upper.lower(), "_"]


async def test_a_clock_that_is_ahead_tells_no_future() -> None:
    broker, _, _ = await pumped(emitted(said(time=1 << 60)))
    assert Event.FromString(broker.events[0].payload).time == 0x200


async def test_data_of_a_message_without_a_field_of_its_own() -> None:
    value = Any()
    value.Pack(StringValue(value="x"))
    broker, letters, _ = await pumped(
        emitted(said(other=value)), emitted(said(other=Any(type_url="type.googleapis.com/no.Such")))
    )
    assert broker.events[0].headers[fmt.SCHEMA].startswith("google.protobuf.StringValue/")
    assert "no.Such" in letters[0].rejected.message


BAD: dict[str, tuple[bytes | ProtobufMessage, int]] = {
    "garbage": (b"\xff\xff", Rejected.REASON_VALUE),
    "broken JSON": (b"{", Rejected.REASON_VALUE),
    "deep JSON": (b'{"a":' * 100_000, Rejected.REASON_TOO_LARGE),
    "unknown field": (b'{"kinds": "note"}', Rejected.REASON_VALUE),
    "lone surrogate": (b'{"verb": "\\ud800"}', Rejected.REASON_VALUE),
    "no UTF-8": (b'{"verb": "\xff"}', Rejected.REASON_VALUE),
    "nothing": (b"", Rejected.REASON_ROUTING),
    "unknown kind": (said(kind="ship"), Rejected.REASON_ROUTING),
    "verb of rows": (said(verb="updated"), Rejected.REASON_VALUE),
    "read": (said(verb="read"), Rejected.REASON_VALUE),
    "no verb": (said(verb="Shared it"), Rejected.REASON_VALUE),
    "no workspace": (said(workspace_id=""), Rejected.REASON_ROUTING),
    "entity of two tokens": (said(entity_id="a.b"), Rejected.REASON_ROUTING),
    "entity of a line": (said(entity_id="a" * 5000), Rejected.REASON_TOO_LARGE),
    "long entity": (said(entity_id="a" * 300), Rejected.REASON_ROUTING),
    "no entity": (said(entity_id="_"), Rejected.REASON_ROUTING),
    "large": (said(note=Note(body="x" * LIMIT)), Rejected.REASON_TOO_LARGE),
    "long actor": (said(actor="x" * 1025), Rejected.REASON_VALUE),
    "broken data": (
        said(other=Any(type_url="x/google.protobuf.StringValue", value=b"\xff")),
        Rejected.REASON_VALUE,
    ),
}


async def test_kinds_that_no_table_has() -> None:
    begin = Begin(0x200, 0x200, 1)
    encoder = Encoder(FITTED, SYSTEM, "app", EPOCH, LIMIT, frozenset({"ship"}))
    made = encoder.domain_event(said(kind="ship").SerializeToString(), None)
    assert made.message(begin, encoder.moment(begin), 0, 1).subject == "zephyr.0.w1.ship.n1.event"


@pytest.mark.parametrize("name", BAD)
async def test_what_cannot_be_an_event_leaves_a_marker(name: str) -> None:
    content, reason = BAD[name]
    message = emitted(content)
    broker, (letter,), pump = await pumped(insert("a"), message, insert("b"))
    assert [each.headers[fmt.COMMIT] for each in broker.events] == ["200/0", "200/1", "200/2/3"]
    marker = broker.events[1]
    workspace, kind, entity, suffix = marker.subject.split(".")[2:]
    assert (entity, suffix) == ("_", "event")
    assert workspace in ("w1", "_")
    assert marker.headers[fmt.VERB] == "rejected"
    event = Event.FromString(marker.payload)
    assert event.type == f"{kind}.rejected"
    assert (event.rejected.reason, event.rejected.table) == (reason, "zephyr.event")
    assert event.rejected.message
    assert "\n" not in event.rejected.message
    assert letter.id == event.id
    (column,) = letter.columns
    data = message.content
    assert column.value == (
        data.decode("utf-8", "backslashreplace") if data[:1] == b"{" else "\\x" + data.hex()
    )
    assert pump.sequencer.rejected == 1
    with pytest.raises(EventRejected):
        await pumped(message, keeps=False)


async def test_the_context_is_of_what_follows_it() -> None:
    broker, _, _ = await pumped(
        insert("a"),
        context(actor="Ada Ü", correlation_id="c-1", traceparent=TRACE),
        insert("b"),
        emitted(said()),
        emitted(said(actor="Eve", metadata={"correlation_id": "c-9"})),
        emitted(b'{"actor": "Bob", "unknown": 1}', fmt.CONTEXT_PREFIX),
        insert("c"),
        emitted(b"\xff", fmt.CONTEXT_PREFIX),
        insert("d"),
    )
    found = []
    for stored in broker.events:
        event = Event.FromString(stored.payload)
        found.append((event.actor, event.correlation_id, event.traceparent))
        headers = [stored.headers.get(name, "") for name in (fmt.ACTOR, fmt.CORRELATION, fmt.TRACEPARENT)]
        assert headers == [header_text(text) for text in found[-1]]
    ada = ("Ada Ü", "c-1", TRACE)
    assert found == [("", "", ""), ada, ada, ("Eve", "c-9", TRACE), ("Bob", "", ""), ("", "", "")]
    assert broker.events[1].headers[fmt.ACTOR] == "Ada%20%C3%9C"


async def test_a_rejected_one_has_its_context() -> None:
    broker, _, _ = await pumped(context(actor="Ada"), emitted(b"\xff"))
    (marker,) = broker.events
    assert (Event.FromString(marker.payload).actor, marker.headers[fmt.ACTOR]) == ("Ada", "Ada")


async def test_what_is_not_transactional_is_passed_over() -> None:
    broker, letters, pump = await pumped(
        insert("a"),
        emitted(said(), in_it=False),
        emitted(TransactionContext(actor="Ada"), fmt.CONTEXT_PREFIX, in_it=False),
        insert("b"),
    )
    assert [each.headers[fmt.COMMIT] for each in broker.events] == ["200/0", "200/1/2"]
    assert all(fmt.ACTOR not in each.headers for each in broker.events)
    assert not letters
    assert pump.sequencer.passed_over == 2


@pytest.mark.parametrize("content", [b"\xff", b"{", TransactionContext(actor="x" * 1025).SerializeToString()])
def test_a_context_that_cannot_be_read(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"TransactionContext|actor"):
        read_context(content)


def test_headers_are_visible_ascii() -> None:
    assert header_text("a-b_c@d.e/f:g") == "a-b_c@d.e/f:g"
    assert header_text('a b"%\r\né\x7f') == "a%20b%22%25%0D%0A%C3%A9%7F"


def test_a_message_in_json_has_the_place_of_one_in_bytes() -> None:
    content = json_format.MessageToJson(TransactionContext(actor="Ada"), indent=None).encode()
    assert read_context(content).actor == "Ada"
