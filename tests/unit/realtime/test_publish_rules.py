"""The rules of the contract without the validator: never more is allowed than with it."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from protos.buf.validate import validate_pb2
from protos.events.v1 import publish_pb2 as pb
from realtime.publish import rules

W = "11111111-1111-4111-8111-111111111111"
texts = st.sampled_from(["note", "shared", W, "_", "e1", "", "Ä", "a.b", "x" * 64, "x" * 129, "note\n", "No"])


@st.composite
def requests(draw: st.DrawFn) -> pb.ProducedEvents:
    result = pb.ProducedEvents()
    for _ in range(draw(st.integers(0, 3))):
        produced = result.events.add(sequence=draw(st.integers(0, 2)))
        event = produced.event
        event.workspace_id, event.kind = draw(texts), draw(texts)
        event.entity_id, event.verb = draw(texts), draw(texts)
        event.time = draw(st.sampled_from([0, 1, -1]))
        event.actor = draw(st.sampled_from(["", "ann", "\x01"]))
        if draw(st.booleans()):
            event.metadata.traceparent = draw(st.sampled_from(["", "no trace"]))
    return result


@given(requests())
def test_it_says_what_the_validator_says(request: pb.ProducedEvents) -> None:
    good = pb.ProducedEvents()
    good.events.add(sequence=1, event=pb.NewEvent(workspace_id=W, kind="note", entity_id="e", verb="shared"))
    assert rules.request_holds(good)
    assert rules.request_holds(good)  # now it is known
    for _ in range(2):
        assert rules.request_holds(request) == rules.holds(request)


def test_too_many_events() -> None:
    event = pb.NewEvent(workspace_id=W, kind="note", entity_id="e", verb="shared")
    request = pb.ProducedEvents(events=[pb.ProducedEvent(sequence=1, event=event)] * 1001)
    assert not rules.request_holds(request)


def test_no_rule_came_that_is_not_known_here() -> None:
    """A new rule must be looked at in ``rules._surely_holds``, and then named here."""
    known = {
        "zephyr.events.v1.ProducedEvents.events",
        "zephyr.events.v1.ProducedEvent.sequence",
        *(
            f"zephyr.events.v1.NewEvent.{name}"
            for name in ("workspace_id", "kind", "entity_id", "verb", "time", "actor")
        ),
        "zephyr.common.v1.RequestMetadata.correlation_id",
        "zephyr.common.v1.RequestMetadata.traceparent",
    }
    assert set(ruled(pb.ProducedEvents.DESCRIPTOR, set())) == known


def ruled(message: Descriptor, seen: set[str]) -> Iterator[str]:
    """What has rules in a message, and in what it is made of."""
    seen.add(message.full_name)
    if message.GetOptions().HasExtension(validate_pb2.message):
        yield message.full_name
    for oneof in message.oneofs:
        if oneof.GetOptions().HasExtension(validate_pb2.oneof):
            yield oneof.full_name
    for each in message.fields:
        if each.GetOptions().HasExtension(validate_pb2.field):
            yield each.full_name
        if each.message_type is not None and each.message_type.full_name not in seen:
            yield from ruled(each.message_type, seen)
