"""The live run that subscriptions of one filter share."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.entry import Entry, make_entry
from realtime.filters import Filter
from realtime.hub import Hub, HubLimits
from realtime.limits import MailboxLimits
from realtime.mask import Mask, compile_mask
from realtime.point import Point
from realtime.subscriber import Subscriber
from realtime.terms import Terms

EPOCH = "0190a0000000000000aa"


def entry(sequence: int, size: int = 10, kind: str = "note") -> Entry:
    event = Event()
    event.note.title = f"t{sequence}"
    event.note.body = "x" * size
    headers = {fmt.VERB: "updated"}
    return make_entry(
        EPOCH, f"zephyr.0.w.{kind}.n.row", headers, event.SerializeToString(), sequence, sequence
    )


def begun() -> Hub:
    hub = Hub()
    hub.begin(EPOCH, Point(0, 0, 0, 0, 0))
    return hub


def listening(hub: Hub, name: str, terms: Terms | None = None, **limits: int) -> Subscriber:
    subscriber = Subscriber(name, terms or Terms(Filter()), MailboxLimits(**limits))
    subscriber.begin(hub.position, hub.epoch)
    hub.attach(subscriber)
    return subscriber


def frame(subscriber: Subscriber) -> pb.SubscribeResponse:
    return pb.SubscribeResponse.FromString(subscriber.take_frame())


def titles(response: pb.SubscribeResponse) -> list[str]:
    return [each.event.note.title for each in response.events.events]


def test_members_at_the_same_place_get_the_same_bytes_but_for_their_names() -> None:
    hub = begun()
    members = [listening(hub, name) for name in ("a", "bb", "ccc")]
    assert hub.lanes == 1
    hub.take([entry(1), entry(2)])
    frames = [member.take_frame() for member in members[:2]]
    assert len(hub._lanes[members[0].lane_key]._frames) == 1, "it was encoded once"
    frames.append(members[2].take_frame())
    rests = {data[2 + len(member.name) :] for data, member in zip(frames, members, strict=True)}
    assert len(rests) == 1
    for data, member in zip(frames, members, strict=True):
        response = pb.SubscribeResponse.FromString(data)
        assert response.subscription_id == member.name
        assert titles(response) == ["t1", "t2"]
        assert response.SerializeToString() == data


def test_who_falls_behind_forgets_and_the_others_keep_their_places() -> None:
    hub = begun()
    slow, quick = listening(hub, "s", max_events=3), listening(hub, "q", max_events=3)
    hub.take([entry(1)])
    assert titles(frame(slow)) == titles(frame(quick)) == ["t1"]
    hub.take([entry(2), entry(3), entry(4)])
    assert titles(frame(quick)) == ["t2", "t3", "t4"]
    hub.take([entry(5)])
    assert (slow.is_live, quick.is_live) == (False, True)
    assert slow.examined == slow.sent
    assert slow.sent.sequence == 1
    assert frame(slow).HasField("fell_behind")
    assert titles(frame(quick)) == ["t5"]


def test_the_last_member_takes_the_lane_with_it() -> None:
    hub = begun()
    one, other = listening(hub, "a", max_events=1), listening(hub, "b", max_events=1)
    hub.detach(one)
    assert (hub.lanes, hub.live_subscriptions) == (1, 1)
    hub.take([entry(1), entry(2)])
    assert not other.is_live
    assert (hub.lanes, len(hub._index)) == (0, 0)
    hub.take([entry(3)])


def test_who_leaves_keeps_what_was_queued() -> None:
    hub = begun()
    one = listening(hub, "a")
    hub.take([entry(1), entry(2)])
    hub.detach(one)
    hub.take([entry(3)])
    one.close(pb.Closed())
    assert titles(frame(one)) == ["t1", "t2"]
    assert frame(one).HasField("closed")
    assert not one.has_frames


def test_credit_cuts_a_shared_frame() -> None:
    hub = begun()
    free, bound = listening(hub, "a"), listening(hub, "b", Terms(Filter(), messages=2))
    assert hub.lanes == 1
    hub.take([entry(at) for at in range(1, 6)])
    assert len(titles(frame(free))) == 5
    cut = frame(bound)
    assert titles(cut) == ["t1", "t2"]
    assert (cut.coverage.after, cut.coverage.through) == (0, 2)
    assert not bound.has_frames
    assert bound.is_paused
    bound.grant(1, None)
    assert titles(frame(bound)) == ["t3"]
    bound.grant(100, None)
    assert titles(frame(bound)) == ["t4", "t5"]


def test_a_paused_one_is_told_of_its_end_and_of_progress_out_of_turn() -> None:
    hub = begun()
    one = listening(hub, "a", Terms(Filter(), messages=0))
    hub.take([entry(1)])
    one.say(pb.Progress(nonce="n"))
    assert not one.has_frames
    one.say(pb.Progress(), in_turn=False)
    assert frame(one).progress.nonce == ""
    assert not one.has_frames
    hub.detach(one)
    one.close(pb.Closed())
    assert frame(one).progress.nonce == "n"
    last = frame(one)
    assert last.HasField("closed")
    assert last.coverage.through == 0, "it does not account for what was not sent"
    assert not one.has_frames


def test_a_mask_leaves_the_envelope_and_its_fields() -> None:
    hub = begun()
    mask = compile_mask(["title"], [pb.DESCRIPTOR.pool.FindMessageTypeByName("zephyr.models.v1.Note")])
    masked, whole = listening(hub, "m", Terms(Filter(), mask)), listening(hub, "w")
    assert hub.lanes == 2
    assert listening(hub, "n", Terms(Filter(), Mask(["title"]))).lane_key == masked.lane_key
    hub.take([entry(1, size=500)])
    (event,) = frame(masked).events.events
    (full,) = frame(whole).events.events
    assert (event.event.note.title, event.event.note.body) == ("t1", "")
    assert (event.sequence, event.cursor) == (full.sequence, full.cursor)
    assert len(full.event.note.body) == 500


def test_a_control_frame_divides_what_is_sent() -> None:
    hub = begun()
    one = listening(hub, "a")
    hub.take([entry(1)])
    one.say(pb.Progress(nonce="n"))
    hub.take([entry(2)])
    assert titles(frame(one)) == ["t1"]
    assert frame(one).progress.nonce == "n"
    assert titles(frame(one)) == ["t2"]


def test_the_end_does_not_wait_for_what_is_examined_no_more() -> None:
    hub = begun()
    terms = Terms(Filter(kinds=frozenset(("note",))), disconnects=True)
    one = listening(hub, "a", terms, max_events=1)
    hub.take([entry(1, kind="user"), entry(2, kind="user")])
    one.say(pb.CaughtUp())
    hub.take([entry(3), entry(4)])
    assert one.falls == 1
    assert one.examined.sequence == 0, "what it had not taken is forgotten"
    one.close(pb.Closed())
    assert frame(one).HasField("caught_up")
    last = frame(one)
    assert last.HasField("closed")
    assert last.coverage.through == 0
    assert not one.has_frames


def test_a_lane_that_all_have_taken_holds_nothing() -> None:
    hub = begun()
    one, other = listening(hub, "a"), listening(hub, "b")
    hub.take([entry(1), entry(2)])
    lane = hub._lanes[one.lane_key]
    frame(one)
    assert (len(lane._items), len(lane._frames)) == (2, 1)
    frame(other)
    assert (lane._items, lane._frames, lane.bytes) == ([], {}, 0)
    hub.take([entry(3)])
    assert titles(frame(one)) == titles(frame(other)) == ["t3"]


def test_who_is_behind_the_ring_is_served_from_the_stream() -> None:
    hub = Hub(HubLimits(ring_entries=8))
    hub.begin(EPOCH, Point(0, 0, 0, 0, 0))
    notes = Terms(Filter(kinds=frozenset(("note",))))
    stalled, live = listening(hub, "s", notes), listening(hub, "l")
    hub.take([entry(1)])
    for sequence in range(2, 20):
        hub.take([entry(sequence, kind="user")])
        frame(live)
    assert not stalled.is_live
    assert stalled.examined.sequence == 0
    assert live.is_live
    assert hub.lanes == 1
