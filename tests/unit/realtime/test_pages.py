"""A snapshot's mailbox: pages by number, bytes and credit, room under a budget, and its place among other frames."""

from __future__ import annotations

import asyncio

from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from realtime.budget import Budget
from realtime.filters import Filter
from realtime.limits import MailboxLimits
from realtime.pages import Pages, state_item
from realtime.point import Point
from realtime.states import PAGE_BYTES
from realtime.subscriber import Subscriber
from realtime.terms import Terms

EPOCH = "0190a0000000000000aa"
START = Point(100, 1, 50, 5, 0)
MIB = 1024 * 1024


def item(size: int = 10) -> bytes:
    event = Event(subject="n")
    event.note.body = "x" * size
    return state_item(event.SerializeToString())


def subscriber(
    page_size: int = 0, messages: int | None = None, size: int | None = None, budget: Budget | None = None
) -> Subscriber:
    terms = Terms(Filter(), messages=messages, bytes=size, page_size=page_size)
    result = Subscriber("s", terms, MailboxLimits(), budget=budget)
    result.begin(START, EPOCH)
    return result


def pages_of(mailbox: Subscriber) -> Pages:
    assert mailbox.pages is not None
    return mailbox.pages


async def put(mailbox: Subscriber, items: list[bytes], is_correction: bool = False) -> None:
    await pages_of(mailbox).put(items, is_correction, mailbox.notify)


def frames(mailbox: Subscriber) -> list[pb.SubscribeResponse]:
    result = []
    while mailbox.has_frames:
        result.append(pb.SubscribeResponse.FromString(mailbox.take_frame()))
    return result


async def test_pages_are_cut_by_number_and_by_what_they_are_and_the_end_follows() -> None:
    mailbox = subscriber(page_size=3)
    mailbox.say(pb.Ready(epoch=EPOCH))
    await put(mailbox, [item()] * 7)
    await put(mailbox, [item()], is_correction=True)
    through = Point(120, 9, 70, 8, 0)
    pages_of(mailbox).end(through, 1)
    ready, *pages, end = frames(mailbox)
    assert ready.WhichOneof("response") == "ready"
    assert not ready.cursor
    assert [len(page.snapshot_page.items) for page in pages] == [3, 3, 1, 1]
    assert [page.snapshot_page.corrections for page in pages] == [False, False, False, True]
    assert all(not page.cursor and page.coverage.after == page.coverage.through == 100 for page in pages)
    assert pages[0].subscription_id == end.subscription_id == "s"
    assert pages[0].snapshot_page.items[0].event.note.body == "x" * 10
    assert end.snapshot_end.items == 8
    assert end.cursor == through.cursor(EPOCH).encode()
    assert end.coverage == pb.Coverage(after=100, through=120, matched=1, skipped=16, internal=3)
    assert mailbox.sent == mailbox.examined == through
    mailbox.say(pb.Progress())
    assert frames(mailbox)[0].cursor


async def test_pages_are_bounded_in_bytes_and_an_item_of_any_size_goes_alone() -> None:
    mailbox = subscriber()
    putting = asyncio.ensure_future(put(mailbox, [item(8 * MIB), *[item(PAGE_BYTES // 3)] * 4]))
    sizes: list[int] = []
    while sum(sizes) < 5:
        await asyncio.sleep(0)
        sizes += [len(frame.snapshot_page.items) for frame in frames(mailbox)]
    assert sizes == [1, 3, 1]
    await putting


async def test_any_credit_admits_one_item_and_none_holds_them() -> None:
    mailbox = subscriber(messages=2, size=15)
    await put(mailbox, [item()] * 5)
    (first,) = frames(mailbox)
    assert len(first.snapshot_page.items) == 1, "15 bytes are less than two items"
    assert mailbox.is_paused
    mailbox.grant(None, 1000)
    (second,) = frames(mailbox)
    assert len(second.snapshot_page.items) == 1, "two messages were granted"
    mailbox.say(pb.Progress(nonce="n"))
    (progress,) = frames(mailbox)
    assert progress.progress.nonce == "n"
    mailbox.grant(10, None)
    pages_of(mailbox).end(START, 0)
    assert [frame.WhichOneof("response") for frame in frames(mailbox)] == ["snapshot_page", "snapshot_end"]


async def test_the_end_needs_no_credit_and_a_close_waits_for_none() -> None:
    mailbox = subscriber(messages=1)
    await put(mailbox, [item()])
    pages_of(mailbox).end(START, 0)
    assert [frame.WhichOneof("response") for frame in frames(mailbox)] == ["snapshot_page", "snapshot_end"]
    closed = subscriber(messages=1)
    await put(closed, [item()] * 3)
    closed.close(pb.Closed())
    assert [frame.WhichOneof("response") for frame in frames(closed)] == ["snapshot_page", "closed"]


async def test_who_puts_waits_for_the_client_under_the_connections_budget() -> None:
    budget = Budget(300 * 1024)
    one, two = subscriber(budget=budget), subscriber(budget=budget)
    large = item(100 * 1024)
    putting = [asyncio.ensure_future(put(mailbox, [large] * 50)) for mailbox in (one, two)]
    taken = [0, 0]
    for _ in range(1000):
        await asyncio.sleep(0)
        assert budget.used <= budget.max_bytes
        for at, mailbox in enumerate((one, two)):
            if mailbox.has_frames:
                frame = pb.SubscribeResponse.FromString(mailbox.take_frame())
                taken[at] += len(frame.snapshot_page.items)
    assert taken == [50, 50]
    await asyncio.gather(*putting)
    assert budget.used == 0


async def test_a_restart_drops_what_waits_and_tells_before_it_begins_anew() -> None:
    mailbox = subscriber()
    await put(mailbox, [item()] * 5)
    mailbox.restart(pb.Reset(action=pb.RESET_ACTION_AWAIT_SNAPSHOT))
    telling = asyncio.ensure_future(mailbox.told())
    await asyncio.sleep(0)
    assert not telling.done()
    (reset,) = frames(mailbox)
    assert reset.reset.action == pb.RESET_ACTION_AWAIT_SNAPSHOT
    assert not reset.cursor
    assert reset.coverage.after == reset.coverage.through == 100
    await telling
    mailbox.begin(Point(7, 1, 3, 1, 0), EPOCH)
    await put(mailbox, [item()])
    pages_of(mailbox).end(Point(7, 1, 3, 1, 0), 0)
    page, end = frames(mailbox)
    assert page.coverage.through == end.coverage.through == 7
    assert end.snapshot_end.items == 1


async def test_who_waits_is_told_when_it_is_over() -> None:
    mailbox = subscriber()
    putting = asyncio.ensure_future(put(mailbox, [item(PAGE_BYTES)] * 10))
    ending = asyncio.ensure_future(pages_of(mailbox).ended())
    await asyncio.sleep(0)
    mailbox.stop()
    await asyncio.wait_for(asyncio.gather(putting, ending), 10)
    mailbox.release()
