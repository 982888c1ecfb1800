"""The fan-out, where the property test does not look: bounds, indexes and the turn of an epoch."""

from __future__ import annotations

import time

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.mark_pb2 import PositionMark
from realtime.entry import Entry, make_entry
from realtime.errors import CursorReset
from realtime.filters import Filter
from realtime.hub import Hub, HubLimits
from realtime.limits import MailboxLimits
from realtime.point import Point
from realtime.subscriber import Subscriber
from realtime.terms import Terms

EPOCH = "0190a0000000000000aa"


def entry(sequence: int, commit: fmt.CommitPlace | None = None, size: int = 1) -> Entry:
    return Entry(sequence, sequence, fmt.Subject("w", "note", "n"), "made", commit, b"", b"x" * size)


def listening(hub: Hub, limits: MailboxLimits | None = None) -> Subscriber:
    subscriber = Subscriber("s", Terms(Filter()), limits or MailboxLimits())
    subscriber.begin(hub.position, hub.epoch)
    hub.attach(subscriber)
    return subscriber


def begun(limits: HubLimits | None = None) -> Hub:
    hub = Hub(limits)
    hub.begin(EPOCH, Point(0, 0, 0, 0, 0))
    return hub


def test_a_transaction_is_held_until_it_is_whole_or_too_large() -> None:
    hub = begun(HubLimits(whole_transaction_events=3, whole_transaction_bytes=100))
    hub.take([entry(1, fmt.CommitPlace(7, 0)), entry(2, fmt.CommitPlace(7, 1))])
    assert (hub.position.sequence, hub.head) == (0, 2)
    hub.take([entry(3, fmt.CommitPlace(7, 2, 3))])
    assert hub.position.sequence == 3
    hub.take([entry(4 + at, fmt.CommitPlace(8, at)) for at in range(4)])
    assert hub.position.sequence == 7
    hub.take([entry(8, fmt.CommitPlace(8, 4), size=101)])
    assert hub.position.sequence == 8


def test_events_of_others_are_no_part_of_an_open_transaction() -> None:
    hub = begun(HubLimits(whole_transaction_events=3, held_entries=10))
    subject = fmt.Subject("w", "note", "n", "event")
    hub.take([entry(1, fmt.CommitPlace(7, 0))])
    for sequence in range(2, 8):
        hub.take([Entry(sequence, sequence, subject, "shared", None, b"", b"x")])
    assert hub.position.sequence == 0
    hub.take([entry(8, fmt.CommitPlace(7, 1)), entry(9, fmt.CommitPlace(7, 2, 3))])
    assert hub.position.sequence == 9
    # But what is held is bounded.
    hub.take([entry(10, fmt.CommitPlace(8, 0)), *(entry(sequence) for sequence in range(11, 20))])
    assert hub.position.sequence == 9
    hub.take([entry(20)])
    assert hub.position.sequence == 20


def test_events_of_others_wait_for_an_open_transaction_and_not_for_ever() -> None:
    hub = begun()
    hub.take([entry(1, fmt.CommitPlace(7, 0)), entry(2)])
    assert hub.position.sequence == 0
    hub.take([entry(3, fmt.CommitPlace(7, 1, 2))])
    assert hub.position.sequence == 3
    # The bridge went away in the midst of one: its mark is no event, and the next one is seconds away.
    hub.take([entry(4, fmt.CommitPlace(8, 0)), Entry(5, int(9e9), None, "owner", None, b"", b"")])
    assert hub.position.sequence == 3
    hub.take([Entry(6, int(9e9), fmt.Subject("w", "note", "n", "event"), "shared", None, b"", b"x")])
    assert hub.position.sequence == 6
    hub.take([entry(7, fmt.CommitPlace(8, 1, 2))])
    assert hub.position.sequence == 7


def test_who_has_no_room_leaves_the_edge_and_the_others_stay() -> None:
    hub = begun()
    slow = listening(hub, MailboxLimits(max_events=1))
    left: list[Subscriber] = []
    slow.on_lag = left.append
    quick = listening(hub)
    hub.take([entry(1), entry(2), entry(3)])
    assert (slow.is_live, quick.is_live) == (False, True)
    assert slow.examined.sequence == 0, "what it had not taken is read again"
    assert left == [slow]
    assert pb.SubscribeResponse.FromString(slow.take_frame()).fell_behind.reason == "mailbox full"
    assert hub.live_subscriptions == 1
    assert len(quick.take_entries(9)[0]) == 3


def test_a_sweep_looks_at_the_lanes_that_hold_something_and_at_no_other() -> None:
    hub = begun(HubLimits(ring_entries=8))
    for number in range(50):
        other = Subscriber("s", Terms(Filter(workspaces=frozenset((str(number),)))), MailboxLimits())
        other.begin(hub.position, hub.epoch)
        hub.attach(other)
    quick, slow = listening(hub), Subscriber("s", Terms(Filter(kinds=frozenset(("note",)))), MailboxLimits())
    slow.begin(hub.position, hub.epoch)
    hub.attach(slow)
    for sequence in range(1, 41):
        hub.take([entry(sequence)])
        quick.take_entries(9)
        assert len(hub._filled) <= 2, "of 52 lanes"
    assert not slow.is_live, "what it had not taken would be kept alive without a bound"
    hub.detach(quick)
    assert not hub._filled


async def test_who_listens_stays_where_it_was_when_the_hub_begins_anew() -> None:
    hub = begun()
    subscriber = listening(hub)
    hub.take([entry(1), entry(2)])
    signal = hub.reset_signal()
    hub.begin("0190b0000000000000bb", Point(0, 0, 0, 0, 0))
    hub.reset(CursorReset("EPOCH_CHANGED", "anew"))
    assert signal.result().reason == "EPOCH_CHANGED"
    assert hub.reset_signal() is not signal
    assert not subscriber.is_live
    assert subscriber.examined.sequence == 2
    hub.take([entry(1)])
    frame = pb.SubscribeResponse.FromString(subscriber.take_frame())
    assert frame.coverage == pb.Coverage(after=0, through=2, matched=2)


def test_marks_tell_where_the_source_is_and_bad_ones_nothing() -> None:
    hub = begun()
    good = PositionMark(wal_lsn=5, wal_time=6).SerializeToString()
    hub.take(
        [Entry(1, 1, None, "position", None, good, b""), Entry(2, 2, None, "position", None, b"\xff", b"")]
    )
    assert (hub.source.wal_lsn, hub.source.wal_time) == (5, 6)
    assert hub.position.internal == 2


def test_a_mark_of_another_epoch_tells_nothing_and_a_new_epoch_begins_without_a_place() -> None:
    hub = begun()
    later = "0190b0000000000000bb"
    marks = [PositionMark(epoch=epoch, wal_lsn=lsn) for epoch, lsn in ((EPOCH, 9), (later, 3))]
    first, second = [
        Entry(at, at, None, "position", None, mark.SerializeToString(), b"")
        for at, mark in enumerate(marks, 1)
    ]
    hub.take([first])
    assert hub.source.wal_lsn == 9
    hub.begin(later, Point(0, 0, 0, 0, 0))
    assert hub.source.wal_lsn == 0
    hub.take([first])
    assert hub.source.wal_lsn == 0
    hub.take([second])
    assert hub.source.wal_lsn == 3


def mark(sequence: int, age_s: float, interval_ms: int = 0) -> Entry:
    payload = PositionMark(epoch=EPOCH, wal_lsn=7, commit_time=5, interval_ms=interval_ms).SerializeToString()
    return make_entry(EPOCH, fmt.POSITION_SUBJECT, {}, payload, sequence, int((time.time() - age_s) * 1e9))


def test_a_mark_that_is_read_back_is_as_old_as_it_is() -> None:
    hub = begun()
    hub.is_fed = False
    hub.take([mark(1, age_s=3600)])
    hub.is_fed = True
    assert hub.source_position().stalled
    assert (hub.source_position().wal_lsn, hub.source_position().commit_time) == (7, 5)
    # Live, whatever the broker's clock says.
    hub.take([mark(2, age_s=3600)])
    assert not hub.source_position().stalled
    hub.is_fed = False
    assert hub.source_position().stalled, "nobody reads the stream"


def test_a_source_may_be_silent_for_three_of_its_intervals() -> None:
    hub = begun()
    for age_s, interval_ms, stalled in (
        (14, 2000, False),
        (16, 2000, True),
        (80, 30_000, False),
        (95, 30_000, True),
    ):
        hub.is_fed = False
        hub.take([mark(hub.head + 1, age_s, interval_ms)])
        hub.is_fed = True
        assert hub.source_position().stalled == stalled


def test_a_copy_is_a_sign_of_life() -> None:
    hub = begun()
    hub.is_fed = False
    hub.take([mark(1, age_s=3600)])
    hub.is_fed = True
    hub.take([make_entry(EPOCH, fmt.SNAPSHOT_SUBJECT, {}, b"", 2, 2)])
    assert not hub.source_position().stalled
