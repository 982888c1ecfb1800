"""Where a frame of broadcasts may stand, and what one that came over the wire is."""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from protos.models.v1.note_pb2 import Note
from realtime.broadcast.audience import Audience
from realtime.broadcast.cast import Cast, read_cast
from realtime.broadcast.row import Row
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.mask import Mask
from realtime.memberships import Memberships
from realtime.point import Point
from realtime.subscriber import Subscriber
from realtime.terms import Terms

START = Point(100, 1, 50, 5, 0)
EPOCH = "0190a0000000000000aa"
EVENT = Event(id="1", type="note.typing", note=Note(id="n", title="t", body="b"))
SUBJECT = b"zephyr-live.0.w.note.n"
HEADERS = b"NATS/1.0\r\nZephyr-Id: 1\r\nZephyr-Verb: typing\r\n\r\n"


def cast(number: int = 1) -> Cast:
    event = Event()
    event.CopyFrom(EVENT)
    event.id = str(number)
    return Cast(fmt.Subject("w", "note", "n", "event"), "typing", event.SerializeToString())


def audience() -> Audience:
    memberships = Memberships()
    return Audience(lambda: memberships)


def row(listeners: Audience, subscriber: Subscriber) -> Row:
    result = Row(listeners, lambda: None, lambda _: True)
    # It is always its turn.
    listeners.on_sleeper = lambda: listeners.wake(1)
    result.open(subscriber)
    return result


def frame(data: bytes | None) -> pb.SubscribeResponse:
    assert data is not None
    return pb.SubscribeResponse.FromString(data)


def test_none_stands_before_ready_or_between_a_reset_and_the_next_one() -> None:
    subscriber = Subscriber("s", Terms(Filter(), page_size=10), MailboxLimits())
    listeners = audience()
    waiting = row(listeners, subscriber)
    listeners.give(cast(1))
    assert waiting.next_frame() is None, "it has not begun"
    subscriber.begin(START, EPOCH)
    subscriber.say(pb.Ready(epoch=EPOCH))
    assert waiting.next_frame() is None, "ready comes first"
    assert frame(subscriber.take_frame()).HasField("ready")
    assert frame(waiting.next_frame()).broadcasts.events[0].id == "1"
    subscriber.restart(pb.Reset(action=pb.RESET_ACTION_AWAIT_SNAPSHOT))
    listeners.give(cast(2))
    assert waiting.next_frame() is None, "the reset comes first"
    assert frame(subscriber.take_frame()).HasField("reset")
    assert waiting.next_frame() is None, "what it would join is not known yet"
    subscriber.begin(Point(200, 1, 0, 0, 0), EPOCH)
    subscriber.say(pb.Ready(epoch=EPOCH))
    assert waiting.next_frame() is None
    assert frame(subscriber.take_frame()).HasField("ready")
    last = frame(waiting.next_frame())
    assert last.broadcasts.events[0].id == "2"
    assert (last.coverage.after, last.coverage.through, last.cursor) == (200, 200, b"")


def test_stored_frames_go_first_and_never_for_ever() -> None:
    subscriber = Subscriber("s", Terms(Filter()), MailboxLimits())
    subscriber.begin(START, EPOCH)
    listeners = audience()
    waiting = row(listeners, subscriber)
    assert [waiting.frame_between() for _ in range(9)] == [None] * 9, "nothing waits"
    waiting.next_frame()
    listeners.give(cast())
    taken = [waiting.frame_between() for _ in range(8)]
    assert [each is not None for each in taken] == [False, False, False, True] + [False] * 4


def test_all_who_want_the_same_get_the_same_bytes() -> None:
    listeners = audience()
    rows = []
    for at in range(3):
        subscriber = Subscriber(
            f"s{at}", Terms(Filter(), mask=Mask(["title"]) if at == 2 else None), MailboxLimits()
        )
        subscriber.begin(START, EPOCH)
        rows.append(row(listeners, subscriber))
    given = cast()
    assert listeners.give(given) == 3
    assert given.item(None) is given.item(None)
    assert given.item(Mask(["title"])) is given.item(Mask(["title"]))
    frames = [frame(each.next_frame()) for each in rows]
    assert [each.subscription_id for each in frames] == ["s0", "s1", "s2"]
    assert frames[0].broadcasts == frames[1].broadcasts == pb.Broadcasts(events=[EVENT])
    assert frames[2].broadcasts.events[0].note == Note(title="t")
    assert frames[2].broadcasts.events[0].type == "note.typing"


def test_who_left_a_workspace_is_not_in_it_any_more() -> None:
    """What belongs to the time before is told of stored events alone."""
    memberships = Memberships()
    given = Cast(fmt.Subject(fmt.NONE, "user", "u", "event"), "seen", b"")
    memberships._note_end("w", "u", 1000)
    assert not Filter(workspaces=frozenset("w")).matches(given.entry, memberships)


def test_what_is_no_broadcast_is_none() -> None:
    payload = EVENT.SerializeToString()
    read = read_cast((SUBJECT, b"", HEADERS, payload), 1000)
    assert read is not None
    assert read.entry.verb == "typing"
    assert read.entry.subject == fmt.Subject("w", "note", "n", "event")
    assert read.entry.payload == payload
    for message in (
        (SUBJECT, b"", HEADERS, b"\xff"),
        (SUBJECT, b"", HEADERS, b"x" * 1001),
        (SUBJECT, b"", b"", payload),
        (SUBJECT, b"", HEADERS.replace(b"typing", b"truncated"), payload),
        (b"zephyr-live.0.w.note", b"", HEADERS, payload),
        (b"zephyr-live.0.w.note.\xff", b"", HEADERS, payload),
        (b"zephyr-live.0.w.note.*", b"", HEADERS, payload),
    ):
        assert read_cast(message, 1000) is None
