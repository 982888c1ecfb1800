"""Subscribe on a real broker: where it begins, how live and past meet, and whatever a stream may hold."""

from __future__ import annotations

import pytest

from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from realtime.cursor import Cursor
from tests.fixtures.eventually import eventually
from tests.fixtures.raw_stream import after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id, sequences
from zephyr.stack.nats import NatsServer

SMALL = {"ring_entries": 64}


async def test_starts_at_the_live_edge_at_the_earliest_and_after_a_cursor(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    old = await writer.commit_each(Change() for _ in range(20))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("live")
        await stream.open("all", start=earliest())
        await stream.caught_up("all")
        cursor = stream["all"].events[9].cursor
        await stream.open("after", start=after(cursor))
        new = await writer.commit_each(Change() for _ in range(5))
        for name in ("live", "all", "after"):
            await stream.until(lambda name=name: stream[name].through == new[-1].sequence)  # type: ignore[misc]
        assert stream["live"].sequences == sequences(new)
        assert stream["all"].sequences == sequences(old + new)
        assert stream["after"].sequences == sequences(old[10:] + new)
        assert stream["all"].events[3].event.note.id == old[3].change.entity  # type: ignore[union-attr]
        assert stream["live"].said[:2] == ["ready", "caught_up"]


async def test_ready_names_the_epoch_and_a_live_start_skips_what_is_there(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    await writer.commit(Change(), Change())
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        assert stream["a"].last.ready.epoch == writer.epoch
        assert Cursor.decode(stream["a"].cursor).sequence == 2


async def test_live_and_catching_up_meet_without_a_seam(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    workspace = new_id()
    await writer.commit_each(Change(workspace=workspace if at % 3 == 0 else fmt.NONE) for at in range(5000))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("all", start=earliest())
        await stream.open("some", pb.Filter(workspace_ids=[workspace]), earliest())
        for at in range(20):
            await writer.commit(*(Change(workspace=workspace) for _ in range(1 + at * 3)))
        last = writer.stored[-1].sequence
        for name in ("all", "some"):
            await stream.until(lambda name=name: stream[name].through == last)  # type: ignore[misc]
        assert stream["all"].sequences == sequences(writer.stored)
        assert stream["some"].ids == [
            each.id for each in writer.stored if each.change and each.change.workspace == workspace
        ]
        assert sum(stream["some"].counts) == last


async def test_a_slow_client_falls_behind_and_comes_back(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with (
        serving(nats_server.url, **SMALL) as address,
        raw_stream(address) as slow,
        raw_stream(address) as quick,
    ):
        await slow.open("s")
        await slow.caught_up("s")
        await quick.open("q")
        for _ in range(40):
            await writer.commit(*(Change(size=2000) for _ in range(200)))  # 16 MB, four mailboxes
            last = writer.stored[-1].sequence
            await quick.until(lambda last=last: quick["q"].through == last)  # type: ignore[misc]
        await slow.until(lambda: slow["s"].through == last and slow["s"].said[-1] == "caught_up", 40)
        assert slow["s"].said.count("fell_behind") == slow["s"].said.count("caught_up") - 1 >= 1
        assert slow["s"].sequences == quick["q"].sequences == sequences(writer.stored)


async def test_transactions_are_whole_up_to_the_limit_and_marked_open_beyond(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await stream.caught_up("a")
        part = await writer.commit(Change(), Change(), open_end=True)
        await stream.ask_progress("a")
        assert stream["a"].events == []
        assert stream["a"].through == part[0].sequence - 1
        rest = await writer.finish(2, Change())
        await stream.until(lambda: stream["a"].events)
        assert stream["a"].sequences == sequences(part + rest)
        assert not stream["a"].last.events.transaction_open

        large = await writer.commit(*(Change() for _ in range(1500)), open_end=True)
        await stream.until(lambda: len(stream["a"].events) > 3)
        assert stream["a"].last.events.transaction_open
        await writer.finish(len(large), Change())
        await stream.until(lambda: stream["a"].through == writer.stored[-1].sequence)
        assert not stream["a"].last.events.transaction_open
        assert stream["a"].sequences == sequences(writer.stored)


async def test_an_event_of_8_mib_goes_alone(nats_server: NatsServer, writer: StreamWriter) -> None:
    large = Change(size=8 * 1024 * 1024 - 4096)
    async with serving(nats_server.url, ring_entries=64) as address, raw_stream(address) as stream:
        await stream.open("live")
        await stream.caught_up("live")
        await writer.commit(Change(), large, Change())
        await writer.commit_each([large, large, Change()])
        await stream.until(lambda: stream["live"].through == writer.stored[-1].sequence)
        await writer.commit_each(Change() for _ in range(100))
        await stream.open("again", start=earliest())
        for name in ("live", "again"):
            await stream.until(
                lambda name=name: stream[name].through == writer.stored[-1].sequence  # type: ignore[misc]
            )
            assert stream[name].sequences == sequences(writer.stored)
            assert max(len(event.event.note.body) for event in stream[name].events) == large.size


async def test_foreign_messages_stop_nobody(nats_server: NatsServer, writer: StreamWriter) -> None:
    subject, row = (str(fmt.Subject(fmt.NONE, "note", new_id(), suffix)) for suffix in ("event", "row"))

    async def scatter() -> None:
        await writer.commit(Change())
        await writer.foreign("zephyr.0.too.short", b"x")
        await writer.foreign(subject, b"x")
        await writer.foreign(subject, b"x", {"Status": "100", "Nats-Last-Consumer": "7"})
        await writer.foreign(row, b"x", {fmt.VERB: "made", fmt.COMMIT: "none"})
        await writer.foreign(
            subject,
            b"x",
            {"Status": "404", "Nats-Sequence": "1", "Nats-Subject": "a", "Nats-Time-Stamp": "b"},
        )
        await writer.foreign("zephyr._mark.0.position", b"\xff\xff")
        await writer.mark(wal_lsn=77)

    await scatter()
    await writer.commit_each(Change() for _ in range(70))
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        await scatter()
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].through == writer.stored[-1].sequence)
        assert stream["a"].sequences == sequences(writer.stored)
        assert stream["a"].counts == [73, 0, 14]
        await stream.ask_progress("a")
        assert stream["a"].last.progress.source.wal_lsn == 77


async def test_a_payload_that_cannot_be_read_is_delivered_as_its_place(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    subject = str(fmt.Subject(fmt.NONE, "note", new_id(), "event"))
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await writer.foreign(subject, b"\xff\xff", {fmt.VERB: "made"})
        await writer.commit(Change())
        await stream.until(lambda: stream["a"].through == 2)
        assert [event.HasField("event") for event in stream["a"].events] == [False, True]


async def test_holes_are_no_loss(nats_server: NatsServer, writer: StreamWriter) -> None:
    await writer.commit_each(Change() for _ in range(300))
    removed = {2, 3, 50, 51, 299}
    for sequence in removed:
        await writer.remove(sequence)
    async with serving(nats_server.url, **SMALL) as address, raw_stream(address) as stream:
        await stream.open("a", start=earliest())
        await stream.caught_up("a")
        cursor = Cursor.decode(stream["a"].events[0].cursor)
        assert stream["a"].sequences == [at for at in range(1, 301) if at not in removed]
        await stream.open("in a hole", start=after(Cursor(cursor.epoch, 50).encode()))
        await stream.caught_up("in a hole")
        assert stream["in a hole"].sequences == [at for at in range(52, 301) if at != 299]
        await writer.commit(Change())
        await writer.remove(301)
        await writer.commit(Change())
        for name in ("a", "in a hole"):
            await stream.until(lambda name=name: stream[name].sequences[-1] == 302)  # type: ignore[misc]
        assert sum(stream["a"].counts) == len(stream["a"].events)


@pytest.mark.parametrize("is_empty", [True, False])
async def test_an_empty_stream_is_served(
    nats_server: NatsServer, writer: StreamWriter, is_empty: bool
) -> None:
    if not is_empty:
        await writer.commit_each(Change() for _ in range(5))
        await writer.api("STREAM.PURGE.ZEPHYR")
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("live")
        await stream.open("all", start=earliest())
        for name in ("live", "all"):
            await stream.caught_up(name)
        new = await writer.commit(Change())
        for name in ("live", "all"):
            await stream.until(lambda name=name: stream[name].events)  # type: ignore[misc]
            assert stream[name].sequences == sequences(new)


async def test_many_streams_share_one_consumer(nats_server: NatsServer, writer: StreamWriter) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as one, raw_stream(address) as two:
        for at in range(50):
            await one.open(str(at))
            await two.open(str(at), start=earliest())

        async def has_one() -> bool:
            return len(await writer.consumers()) == 1

        await eventually(has_one)
        await writer.commit(Change())
        for at in range(50):
            await one.until(lambda at=at: one[str(at)].events)  # type: ignore[misc]
            await two.until(lambda at=at: two[str(at)].events)  # type: ignore[misc]
