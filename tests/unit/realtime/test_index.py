"""An event finds its lanes, also when what was found before is remembered."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime.entry import Entry, make_entry
from realtime.filters import Filter
from realtime.index import Index
from realtime.lane import Lane
from realtime.limits import MailboxLimits
from realtime.memberships import Memberships
from realtime.point import ORIGIN

EPOCH = "0190a0000000000000aa"


def lane(**wanted: str) -> Lane:
    lists = {name: frozenset({value}) for name, value in wanted.items()}
    return Lane((Filter(**lists), None, MailboxLimits()), lambda: ORIGIN)


def event(workspace: str = "w", kind: str = "note", entity: str = "n", verb: str = fmt.UPDATED) -> Entry:
    subject = fmt.Subject(workspace, kind, entity)
    return make_entry(EPOCH, str(subject), {fmt.VERB: verb}, Event().SerializeToString(), 1, 1)


def found(index: Index[Lane], entry: Entry) -> list[Lane]:
    assert entry.subject is not None
    if entry.is_truncation:
        return index.of_kind(entry.subject.kind)
    return index.find(entry.subject, Memberships())


def empty() -> Index[Lane]:
    return Index()


def test_a_lane_that_comes_or_goes_is_seen_by_the_next_event() -> None:
    index, all_of_w, notes = empty(), lane(workspaces="w"), lane(kinds="note")
    assert found(index, event()) == []
    index.add(all_of_w.filter, all_of_w)
    assert found(index, event()) == [all_of_w]
    index.add(notes.filter, notes)
    assert set(found(index, event())) == {all_of_w, notes}
    assert found(index, event(workspace="v")) == [notes]
    assert found(index, event(kind="membership")) == [all_of_w]
    index.remove(all_of_w.filter, all_of_w)
    assert found(index, event()) == [notes]
    index.remove(notes.filter, notes)
    assert (found(index, event()), len(index)) == ([], 0)


def test_a_filter_of_an_entity_tells_events_of_one_workspace_apart() -> None:
    index, one, every = empty(), lane(entities="n"), lane(workspaces="w")
    index.add(every.filter, every)
    assert found(index, event(entity="m")) == [every]
    index.add(one.filter, one)
    assert set(found(index, event())) == {one, every}
    assert found(index, event(entity="m")) == [every]
    index.remove(one.filter, one)
    assert found(index, event()) == [every]


def test_a_truncation_reaches_every_lane_of_its_kind() -> None:
    index, here, users = empty(), lane(workspaces="elsewhere"), lane(kinds="user")
    index.add(here.filter, here)
    index.add(users.filter, users)
    assert found(index, event(entity=fmt.NONE, verb=fmt.TRUNCATED)) == [here]
