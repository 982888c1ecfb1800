"""A mailbox: what it takes, what it refuses, and the frames that it gives."""

from __future__ import annotations

import asyncio

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.entry import make_entry
from realtime.filters import Filter
from realtime.history import Item
from realtime.limits import MailboxLimits
from realtime.point import Point
from realtime.subscriber import Subscriber
from realtime.terms import Terms

EPOCH = "0190a0000000000000aa"
KIB = 1024
START = Point(100, 1, 50, 5, 0)


class Feed:
    """Makes items that follow one another."""

    def __init__(self) -> None:
        self.point = START

    def item(self, size: int = 10, commit: str = "", *, mark: bool = False, step: int = 1) -> Item:
        event = Event()
        event.note.body = "x" * size
        subject = fmt.POSITION_SUBJECT if mark else "zephyr.0.w.note.n.row"
        headers = {fmt.VERB: "updated"} | ({fmt.COMMIT: commit} if commit else {})
        sequence = self.point.sequence + step
        entry = make_entry(EPOCH, subject, headers, event.SerializeToString(), sequence, sequence)
        self.point = self.point.after(entry)
        return entry, self.point


def subscriber(limits: MailboxLimits | None = None) -> Subscriber:
    result = Subscriber("s", Terms(Filter()), limits or MailboxLimits())
    result.begin(START, EPOCH)
    return result


def frame(mailbox: Subscriber) -> pb.SubscribeResponse:
    return pb.SubscribeResponse.FromString(mailbox.take_frame())


def frames(mailbox: Subscriber) -> list[pb.SubscribeResponse]:
    result = []
    while mailbox.has_frames:
        result.append(frame(mailbox))
    return result


async def test_it_refuses_by_number_and_by_bytes_and_tells_when_it_is_half_empty() -> None:
    feed = Feed()
    mailbox = subscriber(MailboxLimits(max_events=4))
    assert all(mailbox.offer(feed.item()) for _ in range(4))
    assert not mailbox.offer(feed.item())
    waiting = asyncio.ensure_future(mailbox.room())
    done, _ = await asyncio.wait((waiting,), timeout=0)
    assert not done
    mailbox.take_frame()
    await asyncio.wait_for(waiting, 10)

    small = subscriber(MailboxLimits(max_bytes=KIB))
    assert small.offer(feed.item(8 * KIB * KIB)), "an empty mailbox takes an entry of any size"
    assert not small.offer(feed.item(1))


def test_a_frame_grows_to_128_kib_and_further_to_keep_a_transaction_together() -> None:
    feed = Feed()
    mailbox = subscriber()
    for _ in range(20):
        mailbox.offer(feed.item(10 * KIB))
    assert [len(each.events.events) for each in frames(mailbox)] == [13, 7]
    for at in range(50):
        mailbox.offer(feed.item(10 * KIB, f"A/{at}" if at < 49 else "A/49/50"))
    (whole,) = frames(mailbox)
    assert len(whole.events.events) == 50
    assert not whole.events.transaction_open


def test_a_transaction_over_900_kib_is_cut_and_marked() -> None:
    feed = Feed()
    mailbox = subscriber()
    for at in range(200):
        mailbox.offer(feed.item(10 * KIB, f"A/{at}" if at < 199 else "A/199/200"))
    taken = frames(mailbox)
    assert [each.events.transaction_open for each in taken] == [True] * (len(taken) - 1) + [False]
    assert max(each.ByteSize() for each in taken) < 901 * KIB
    assert sum(len(each.events.events) for each in taken) == 200


def test_a_transaction_whose_end_does_not_match_is_not_left_open() -> None:
    feed = Feed()
    mailbox = subscriber()
    mailbox.offer(feed.item(130 * KIB, "A/0"))
    feed.item(10, "A/1/2")  # the end: for somebody else
    mailbox.offer(feed.item(10, "B/0"))
    feed.item(10, "B/1/2")
    mailbox.examine(feed.point)
    first, second = frames(mailbox)
    assert not first.events.transaction_open
    assert not second.events.transaction_open
    mailbox.offer(feed.item(10, "C/0"))
    feed.item(10, "C/1/2")
    mailbox.examine(feed.point)
    mailbox.say(pb.Progress())
    assert not frame(mailbox).events.transaction_open


def test_an_event_of_8_mib_goes_alone() -> None:
    feed = Feed()
    mailbox = subscriber(MailboxLimits(max_bytes=100 * KIB * KIB))
    for size in (10, 8 * KIB * KIB, 10):
        mailbox.offer(feed.item(size))
    assert [len(each.events.events) for each in frames(mailbox)] == [1, 1, 1]


def test_coverage_counts_what_was_examined() -> None:
    feed = Feed()
    mailbox = subscriber()
    mailbox.offer(feed.item())
    feed.item(mark=True)
    feed.item(step=5)
    mailbox.offer(feed.item())
    feed.item()
    feed.item(mark=True)
    mailbox.examine(feed.point)
    (only,) = frames(mailbox)
    assert only.coverage == pb.Coverage(after=100, through=110, matched=2, skipped=2, internal=2)
    assert mailbox.sent == feed.point
    assert not mailbox.is_behind


def test_renumbering_changes_no_coverage() -> None:
    feed = Feed()
    mailbox = subscriber()
    mailbox.offer(feed.item())
    mailbox.examine(feed.point)
    mailbox.renumber(1000, 10)
    assert frame(mailbox).coverage == pb.Coverage(after=100, through=101, matched=1)


def test_control_frames_take_their_turn() -> None:
    feed = Feed()
    mailbox = subscriber()
    mailbox.say(pb.Ready(epoch=EPOCH))
    mailbox.offer(feed.item())
    mailbox.examine(feed.point)
    mailbox.say(pb.CaughtUp())
    mailbox.offer(feed.item())
    mailbox.examine(feed.point)
    mailbox.close(pb.Closed())
    mailbox.close(pb.Closed())
    told = frames(mailbox)
    assert [each.WhichOneof("response") for each in told] == [
        "ready",
        "events",
        "caught_up",
        "events",
        "closed",
    ]
    assert [(each.coverage.after, each.coverage.through) for each in told] == [
        (100, 100),
        (100, 101),
        (101, 101),
        (101, 102),
        (102, 102),
    ]


def test_nothing_follows_the_end_that_went_out_for_want_of_credit() -> None:
    feed = Feed()
    mailbox = Subscriber("s", Terms(Filter(), bytes=0), MailboxLimits())
    mailbox.begin(START, EPOCH)
    mailbox.offer(feed.item())
    mailbox.examine(feed.point)
    mailbox.reset(pb.Reset())
    mailbox.close(pb.Closed())
    first = frame(mailbox)
    assert first.WhichOneof("response") == "reset"
    mailbox.grant(None, 1000)
    (last,) = frames(mailbox)
    assert last.WhichOneof("response") == "closed"
    assert first.coverage.through == last.coverage.through == START.sequence


def test_nothing_follows_a_reset_that_did_not_wait_for_credit() -> None:
    feed = Feed()
    mailbox = Subscriber("s", Terms(Filter(), messages=1), MailboxLimits())
    mailbox.begin(START, EPOCH)
    for item in (feed.item(), feed.item(), feed.item()):
        mailbox.offer(item)
        mailbox.examine(item[1])
    assert len(frame(mailbox).events.events) == 1
    mailbox.reset(pb.Reset())
    first = frame(mailbox)
    mailbox.grant(5, None)
    mailbox.close(pb.Closed())
    (last,) = frames(mailbox)
    assert first.HasField("reset")
    assert last.HasField("closed")
    assert first.coverage.through == last.coverage.through == START.sequence + 1


def test_entries_may_be_taken_as_they_are() -> None:
    feed = Feed()
    mailbox = subscriber()
    items = [feed.item() for _ in range(3)]
    for item in items:
        mailbox.offer(item)
    feed.item(mark=True)
    mailbox.examine(feed.point)
    assert mailbox.take_entries(2) == ([items[0][0], items[1][0]], items[1][1])
    assert mailbox.take_entries(2) == ([items[2][0]], feed.point)


def test_before_it_began_a_frame_has_no_cursor() -> None:
    mailbox = Subscriber("s", Terms(Filter()), MailboxLimits())
    mailbox.close(pb.Closed())
    told = frame(mailbox)
    assert told.cursor == b""
    assert told.coverage == pb.Coverage()
