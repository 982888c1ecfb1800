"""The parts of publishing that do no I/O."""

from __future__ import annotations

import itertools
import time
import uuid
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from protos.events.v1 import publish_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.entry import make_entry
from realtime.errors import AlreadyStored, ArgumentInvalid, LimitExceeded, SettingInvalid, VersionConflict
from realtime.publish.arrivals import Arrivals
from realtime.publish.commands import Message, batch_commands, single_command
from realtime.publish.draft import Drafter, new_event_id, source_of
from realtime.publish.item import Item
from realtime.publish.payloads import load_payloads
from realtime.publish.results import KEPT, Results
from realtime.publish.rules import RuleBroken, check
from realtime.publish.window import Allowance, Window
from realtime.services.publish_results import results_of
from realtime.status import from_error, to_error

W = "11111111-1111-4111-8111-111111111111"


def new(**fields: Any) -> pb.NewEvent:
    return pb.NewEvent(**{"workspace_id": W, "kind": "note", "entity_id": "n", "verb": "shared", **fields})


def drafter(types: str = "", max_bytes: int = 4096) -> Drafter:
    return Drafter(("note", "user", "task"), load_payloads(types, ""), max_bytes)


def refused(event: pb.NewEvent, types: str = "") -> ArgumentInvalid:
    with pytest.raises(ArgumentInvalid) as caught:
        drafter(types).message(event, "id", "/publisher/p", "")
    assert caught.value.mend
    return caught.value


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        *[({"verb": verb}, "ROW_VERB") for verb in ("created", "updated", "deleted", "truncated", "entered")],
        *[({"verb": verb, "kind": "task"}, "ROW_VERB") for verb in ("left", "read", "rejected")],
        ({"kind": "tasks"}, "UNKNOWN_KIND"),
        ({"time": time.time_ns() // 1000 + 3_600_000_000}, "TIME_IN_FUTURE"),
        ({"user": {"id": "u"}}, "DATA_MISFIT"),
        ({"kind": "task", "note": {"id": "u"}}, "DATA_MISFIT"),
        ({"note": {"body": "x" * 5000}}, "EVENT_TOO_LARGE"),
        ({"other": any_pb2.Any(type_url="type.googleapis.com/acme.v1.Order")}, "ARGUMENT_INVALID"),
    ],
)
def test_what_cannot_be_stored(fields: dict[str, object], reason: str) -> None:
    assert refused(new(**fields)).reason == reason


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"workspace_id": "w"}, "workspace_id"),
        ({"workspace_id": ""}, "workspace_id"),
        ({"kind": ""}, "kind"),
        ({"kind": "no.te"}, "kind"),
        ({"entity_id": "a b"}, "entity_id"),
        ({"entity_id": "a.b"}, "entity_id"),
        ({"entity_id": "x" * 129}, "entity_id"),
        ({"entity_id": "x\n"}, "entity_id"),
        ({"verb": "Shared"}, "verb"),
        ({"verb": ""}, "verb"),
        ({"verb": "shared\r\nNats-Msg-Id"}, "verb"),
        ({"time": -1}, "time"),
        ({"actor": "a\r\nNats-Expected-Stream: x"}, "actor"),
        ({"metadata": {"correlation_id": "a\nb"}}, "metadata.correlation_id"),
        ({"metadata": {"traceparent": "00-1"}}, "metadata.traceparent"),
    ],
)
def test_the_rules_of_the_contract(fields: dict[str, object], field: str) -> None:
    with pytest.raises(RuleBroken) as caught:
        check(pb.PublishRequest(event=new(**fields)))
    assert [name for name, _ in caught.value.violations] == [f"event.{field}"]


def test_an_envelope() -> None:
    entity = str(uuid.uuid4()).upper()
    event = new(entity_id=entity, workspace_id=W.upper(), note={"title": "t"})
    message = drafter().message(event, "p.1", source_of("a b/c"), "caller")
    assert message.subject == f"zephyr.0.{W}.note.{entity.lower()}.event"
    stored = Event.FromString(message.payload)
    assert (stored.source, stored.actor, stored.note.title) == ("/publisher/a%20b%2Fc", "caller", "t")
    assert abs(stored.time - time.time_ns() // 1000) < 60_000_000
    assert stored.subject == entity.lower()


_text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)


@given(
    st.fixed_dictionaries(
        {"verb": st.sampled_from(("shared", "moved")), "kind": st.sampled_from(("note", "user", "task"))},
        optional={
            "time": st.integers(0, 10**15),
            "actor": _text,
            "entity_id": st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
            "metadata": st.fixed_dictionaries({}, optional={"correlation_id": _text, "traceparent": _text}),
        },
    ),
    _text,
    st.booleans(),
)
def test_an_envelope_is_what_protobuf_makes_of_it(fields: dict[str, Any], text: str, has_data: bool) -> None:
    event = new(**fields)
    if has_data and event.kind == "note":
        event.note.title = text
        event.note.metadata["k"] = text
    message = drafter().message(event, f"p.{text}", source_of(text), text)
    stored = Event.FromString(message.payload)
    expected = Event(
        id=f"p.{text}",
        type=f"{event.kind}.{event.verb}",
        source=source_of(text),
        subject=event.entity_id,
        time=event.time or stored.time,
        workspace_id=W,
        data_schema=stored.data_schema,
        actor=event.actor or text,
        correlation_id=event.metadata.correlation_id,
        traceparent=event.metadata.traceparent,
    )
    if event.WhichOneof("data"):
        expected.note.CopyFrom(event.note)
    assert stored == expected
    assert bool(stored.data_schema) == bool(event.WhichOneof("data"))
    assert message.payload == stored.SerializeToString()


def test_allowed_types(tmp_path: object) -> None:
    packed = any_pb2.Any(type_url="type.googleapis.com/acme.v1.Order", value=b"\x0a\x01x")
    message = drafter("acme.v1.Order, acme.v1.Other").message(new(other=packed), "id", "/p", "")
    stored = Event.FromString(message.payload)
    assert (stored.data_schema, stored.other.value) == ("acme.v1.Order", b"\x0a\x01x")
    with pytest.raises(SettingInvalid, match="no name of a message"):
        load_payloads("acme v1", "")


def test_types_whose_definition_is_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="acme.v1", syntax="proto3")
    made = file.message_type.add(name="Order")
    made.field.add(name="id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    path = tmp_path_factory.mktemp("set") / "set.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    payloads = load_payloads("acme.v1.Order", str(path))
    url = "type.googleapis.com/acme.v1.Order"
    assert payloads.check(any_pb2.Any(type_url=url, value=b"\x0a\x01x")).startswith("acme.v1.Order/")
    with pytest.raises(ArgumentInvalid, match="its bytes are no acme"):
        payloads.check(any_pb2.Any(type_url=url, value=b"\x0a\x09x"))
    for names, file_name in (("acme.v1.Nothing", str(path)), ("acme.v1.Order", "/nowhere")):
        with pytest.raises(SettingInvalid, match="ZEPHYR_PUBLISH_DESCRIPTORS"):
            load_payloads(names, file_name)


def test_commands() -> None:
    one = Message("zephyr.a", "Zephyr-Actor: ä\r\n", b"payload")
    assert single_command(one, "_INBOX.1") == (
        b"HPUB zephyr.a _INBOX.1 30 37\r\nNATS/1.0\r\nZephyr-Actor: \xc3\xa4\r\n\r\npayload\r\n"
    )
    plain = Message("zephyr.b", "A: b\r\n", b"")
    assert batch_commands([plain, plain], "x.1", "_INBOX.2") == (
        b"HPUB zephyr.b  62 62\r\nNATS/1.0\r\nA: b\r\nNats-Batch-Id: x.1\r\nNats-Batch-Sequence: 1\r\n\r\n\r\n"
        b"HPUB zephyr.b _INBOX.2 84 84\r\nNATS/1.0\r\nA: b\r\nNats-Batch-Id: x.1\r\nNats-Batch-Sequence: 2\r\n"
        b"Nats-Batch-Commit: 1\r\n\r\n\r\n"
    )


def test_results_are_what_protobuf_makes_of_them() -> None:
    stored, again, old, wrong = (
        Item(1, Message("", "", b""), "p.1"),
        Item(300, Message("", "", b""), "p.ä"),
        None,
        None,
    )
    stored.store(7)
    again.store(2**40, is_repeated=True)
    old = Item.refused(2, AlreadyStored())
    wrong = Item.refused(0, ArgumentInvalid("event", "wrong"))
    data = results_of([stored, old, again, wrong], [b"c" * 33, b"d" * 33])
    expected = pb.PublishStreamResponse()
    results = expected.results.results
    results.add(sequence=1, stored=pb.Stored(cursor=b"c" * 33, sequence=7, version=7, event_id="p.1"))
    results.add(sequence=2, already_stored=pb.AlreadyStored())
    results.add(
        sequence=300,
        stored=pb.Stored(cursor=b"d" * 33, sequence=2**40, version=2**40, event_id="p.ä", repeated=True),
    )
    results.add(sequence=0, error=to_error(ArgumentInvalid("event", "wrong")))
    assert pb.PublishStreamResponse.FromString(data) == expected


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=400), max_size=12))
def test_the_last_results_are_kept(batches: list[list[int]]) -> None:
    """``batches`` are the steps between sequences; marks stand behind each."""
    results = Results()
    places: dict[int, int] = {}
    marks: list[tuple[int, int]] = []
    sequence, place = 0, 10
    for steps in batches:
        since = results.since(len(steps))
        sequences = [sequence := sequence + step for step in steps]
        results.add(sequences, place)
        places.update(zip(sequences, itertools.count(place), strict=False))
        place += len(steps)
        marks.append((place, len(steps)))
        place += 1
        # The marks from there on, with this one, hold the last results, and no earlier one is needed.
        from_there = [count for mark, count in marks if mark >= (since or marks[-1][0])]
        assert sum(from_there) >= min(KEPT, len(places))
        assert sum(from_there[1:]) < KEPT
    kept = list(places)[-KEPT:]
    for each in range(sequence + 2):
        assert results.find(each) == (places[each] if each in kept else 0)
    assert results.oldest == (kept[0] if kept else 0)


def test_arrivals() -> None:
    arrivals = Arrivals(kept=100)
    arrivals.begin("aa" * 10, 5)
    subject = f"zephyr.0.{W}.note.n.event"

    def take(*sequences: int) -> None:
        arrivals.take(
            [make_entry("aa" * 10, subject, {"Zephyr-Verb": "x"}, b"", at, at * 10) for at in sequences]
        )

    take(6, 7, 8)
    take(10, 12)
    assert [arrivals.timestamp_ns(at) for at in range(5, 14)] == [0, 60, 70, 80, 0, 100, 0, 120, 0]
    assert arrivals.head == 12
    for at in range(13, 500, 7):
        take(*range(at, at + 7))
    assert arrivals.timestamp_ns(6) == 0
    assert arrivals.timestamp_ns(450) == 4500
    arrivals.begin("bb" * 10, 0)
    assert arrivals.timestamp_ns(450) == 0


def test_a_window_follows_the_broker() -> None:
    window = Window(Allowance(64 * 2**20))
    first = window.events
    assert window.note(1, 0.01, first, 0)
    assert window.events == 2 * first
    assert not window.note(1, 0.01, first * 2, 0), "each batch counts once"
    assert not window.note(2, 0.01, 10, 10), "nobody needs more"
    assert window.note(3, 2.0, first, 0)
    assert window.events == first
    for batches in range(4, 40):
        window.note(batches, 2.0, first, 0)
    assert 0 < window.events < first
    assert window.bytes > 0
    assert window.has_room(window.events - 1, window.bytes - 1)
    assert not window.has_room(window.events, 0)
    assert not window.has_room(0, window.bytes)


def test_all_windows_together_are_bounded() -> None:
    allowance = Allowance(3 * 2**20)
    windows = [Window(allowance) for _ in range(5)]
    with pytest.raises(LimitExceeded):
        Window(allowance)
    assert not windows[0].note(1, 0.01, windows[0].events, 0) or windows[0].bytes <= 2 * 2**20
    for window in windows:
        window.close()
    Window(allowance).close()


def test_a_conflict_over_the_wire() -> None:
    conflict = VersionConflict([(f"events[{at}]", at, b"c" * 33) for at in range(1, 100)])
    back = from_error(to_error(conflict))
    assert isinstance(back, VersionConflict)
    assert len(back.conflicts) == 30
    assert list(back.conflicts) == list(conflict.conflicts[:30])
    assert "99 events conflict" in back.message


def test_event_ids_sort_by_time() -> None:
    ids = [new_event_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(uuid.UUID(each).version == 7 for each in ids)
    milliseconds = [uuid.UUID(each).int >> 80 for each in ids]
    assert milliseconds == sorted(milliseconds)
