"""What a caller may get wrong: each fault closes its subscription with the reason, and the others run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]  # it has no marker

from protos.common.v1 import error_pb2 as codes
from protos.events.v1 import stream_pb2 as pb
from protos.wire import delimited
from realtime.cursor import Cursor
from tests.fixtures.raw_stream import RawStream, after, earliest, raw_stream
from tests.fixtures.realtime_server import serving
from tests.fixtures.stream_writer import Change, StreamWriter, new_id
from zephyr.stack.nats import NatsServer

EPOCH = "0190a0000000000000aa"


@pytest.fixture
async def stream(nats_server: NatsServer, writer: StreamWriter) -> AsyncIterator[RawStream]:
    """A stream with one good subscription on it, which must still run at the end."""
    async with serving(nats_server.url) as address, raw_stream(address) as result:
        await result.open("good")
        yield result
        (stored,) = await writer.commit(Change())
        await result.until(lambda: result["good"].through == stored.sequence)
        assert result["good"].ids == [stored.id]


def detail(error: codes.Error, kind: type[Any]) -> Any:
    for packed in error.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {error}")


async def refused(stream: RawStream, name: str, code: int, reason: str, field: str = "") -> codes.Error:
    """Reads the end of a subscription, and holds it against what it must say."""
    error = (await stream.closed(name)).error
    info = detail(error, rpc.ErrorInfo)
    assert (error.code, info.reason, info.domain) == (code, reason, "zephyr")
    assert "\n" not in error.message
    if field:
        assert [item.field for item in detail(error, rpc.BadRequest).field_violations] == [field]
    return error


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (pb.Filter(workspace_ids=[new_id(), "not-a-uuid"]), "filter.workspace_ids[1]"),
        (pb.Filter(workspace_ids=[""]), "filter.workspace_ids[0]"),
        (pb.Filter(workspace_ids=["0x" + "1" * 34]), "filter.workspace_ids[0]"),
        (pb.Filter(workspace_ids=["\N{FULLWIDTH DIGIT ONE}" * 32]), "filter.workspace_ids[0]"),
        (pb.Filter(kinds=["note", "cat"]), "filter.kinds[1]"),
        (pb.Filter(entity_ids=["a.b"]), "filter.entity_ids[0]"),
        (pb.Filter(entity_ids=["_"]), "filter.entity_ids[0]"),
        (pb.Filter(entity_ids=["*"]), "filter.entity_ids[0]"),
        (pb.Filter(verbs=["updated", "Updated"]), "filter.verbs[1]"),
        (pb.Filter(changed_fields=["titel"]), "filter.changed_fields[0]"),
    ],
)
async def test_a_filter_that_cannot_be(stream: RawStream, wanted: pb.Filter, field: str) -> None:
    await stream.open("bad", wanted, wait=False)
    error = await refused(stream, "bad", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", field)
    assert field in error.message


async def test_a_filter_with_too_many_combinations(stream: RawStream) -> None:
    wanted = pb.Filter(workspace_ids=[new_id() for _ in range(40)], entity_ids=[new_id() for _ in range(40)])
    await stream.open("bad", wanted, wait=False)
    await refused(stream, "bad", codes.ERROR_CODE_RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")


@pytest.mark.parametrize("name", ["workspace_ids", "kinds", "entity_ids", "verbs", "changed_fields"])
async def test_a_filter_with_a_list_that_is_too_long(stream: RawStream, name: str) -> None:
    await stream.open("bad", pb.Filter(**{name: ["note"] * 10_000}), wait=False)
    error = await refused(stream, "bad", codes.ERROR_CODE_RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert f"filter.{name} has 10000 members" in error.message


# As a client in another language may write -1: ten bytes, of which an unsigned field keeps 32 bits.
NEGATIVE_LINGER = delimited(1, delimited(1, b"bad") + b"\x38" + b"\xff" * 9 + b"\x01")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.OpenSubscription(credit=pb.Credit(messages=-1)), "open.credit.messages"),
        (pb.OpenSubscription(credit=pb.Credit(messages=1, bytes=-(2**63))), "open.credit.bytes"),
        (pb.OpenSubscription(max_linger_ms=1001), "open.max_linger_ms"),
        (pb.OpenSubscription(max_linger_ms=2**32 - 1), "open.max_linger_ms"),
        (NEGATIVE_LINGER, "open.max_linger_ms"),
        (
            pb.OpenSubscription(overflow_policy=cast("pb.OverflowPolicy.ValueType", 99)),
            "open.overflow_policy",
        ),
        (pb.OpenSubscription(field_mask=FieldMask(paths=["title", "titel"])), "open.field_mask.paths[1]"),
        (pb.OpenSubscription(field_mask=FieldMask(paths=["title"] * 101)), "open.field_mask"),
    ],
)
async def test_terms_that_cannot_be(
    stream: RawStream, request_: pb.OpenSubscription | bytes, field: str
) -> None:
    if isinstance(request_, pb.OpenSubscription):
        request_.subscription_id = "bad"
        request_ = pb.SubscribeRequest(open=request_).SerializeToString()
    await stream.send(request_)
    await refused(stream, "bad", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", field)


@pytest.mark.parametrize("field", ["messages", "bytes"])
async def test_credit_that_is_negative_ends_its_subscription(stream: RawStream, field: str) -> None:
    await stream.open("bad")
    credit = pb.Credit(**{field: -1})
    await stream.send(pb.SubscribeRequest(credit=pb.CreditGrant(subscription_id="bad", credit=credit)))
    await refused(
        stream, "bad", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", f"credit.credit.{field}"
    )


async def test_credit_of_what_is_not_open(stream: RawStream) -> None:
    await stream.send(pb.SubscribeRequest(credit=pb.CreditGrant(subscription_id="x")))
    await refused(
        stream, "x", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "credit.subscription_id"
    )


@pytest.mark.parametrize("name", ["", "x" * 65, "ü" * 33])
async def test_a_subscription_id_that_cannot_be(stream: RawStream, name: str) -> None:
    await stream.open(name, wait=False)
    await refused(stream, "", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "open.subscription_id")


async def test_a_nonce_that_is_too_long(stream: RawStream) -> None:
    query = pb.ProgressQuery(subscription_id="good", nonce="x" * 65)
    await stream.send(pb.SubscribeRequest(progress=query))
    await refused(stream, "", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "progress.nonce")


async def test_a_subscription_id_that_is_taken(stream: RawStream) -> None:
    request = pb.SubscribeRequest(open=pb.OpenSubscription(subscription_id="twice"))
    await stream.send(request)
    await stream.send(request)
    error = await refused(
        stream, "", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "open.subscription_id"
    )
    assert "'twice' is open already" in error.message
    await stream.caught_up("twice")


async def test_a_subscription_id_may_be_used_again(stream: RawStream) -> None:
    for _ in range(3):
        await stream.open("again")
        await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id="again")))
        assert not (await stream.closed("again")).HasField("error")


async def test_a_subscription_that_is_closed_at_once_says_nothing_after_the_end(stream: RawStream) -> None:
    for at in range(50):
        name = f"s{at}"
        stream.accounts.pop(name, None)
        await stream.send(
            pb.SubscribeRequest(open=pb.OpenSubscription(subscription_id=name, start=earliest()))
        )
        await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id=name)))
    for at in range(50):
        await stream.closed(f"s{at}")
    # The account of a subscription refuses a frame after the end.
    await stream.open("last")
    await stream.caught_up("last")


async def test_no_more_than_100_subscriptions(stream: RawStream) -> None:
    for at in range(99):
        await stream.open(str(at))
    await stream.open("one too many", wait=False)
    await refused(stream, "one too many", codes.ERROR_CODE_RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")


async def test_a_request_that_says_nothing(stream: RawStream) -> None:
    await stream.send(pb.SubscribeRequest())
    await refused(stream, "", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "request")


async def test_bytes_that_are_no_request(stream: RawStream) -> None:
    await stream.send(b"\xff\xff\xff\xff")
    await refused(stream, "", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "request")


async def test_a_request_over_the_limit_is_refused_and_nothing_else_is(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with (
        serving(nats_server.url) as address,
        raw_stream(address) as large,
        raw_stream(address) as other,
    ):
        await other.open("a")
        await large.send(b"\x00" * (2 * 1024 * 1024))
        await refused(large, "", codes.ERROR_CODE_RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        # What gRPC itself does not take ends the stream.
        await large.send(b"\x00" * (11 * 1024 * 1024))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await large.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await writer.commit(Change())
        await other.until(lambda: other["a"].events)


async def test_close_and_progress_of_what_is_not_open(stream: RawStream) -> None:
    await stream.send(pb.SubscribeRequest(close=pb.CloseSubscription(subscription_id="x")))
    await refused(stream, "x", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "close.subscription_id")
    await stream.send(pb.SubscribeRequest(progress=pb.ProgressQuery(subscription_id="y")))
    await refused(
        stream, "y", codes.ERROR_CODE_INVALID_ARGUMENT, "ARGUMENT_INVALID", "progress.subscription_id"
    )


async def test_a_cursor_that_was_changed(stream: RawStream) -> None:
    good = stream["good"].cursor
    for at, cursor in enumerate((b"", b"x", good[:-1], good + b"\x00", bytes([good[0] ^ 1]) + good[1:])):
        await stream.open(str(at), start=after(cursor), wait=False)
        await refused(stream, str(at), codes.ERROR_CODE_INVALID_ARGUMENT, "CURSOR_INVALID", "cursor")


async def test_a_cursor_of_another_epoch(stream: RawStream) -> None:
    await stream.open("old", start=after(Cursor(EPOCH, 1, 1).encode()), wait=False)
    await refused(stream, "old", codes.ERROR_CODE_FAILED_PRECONDITION, "EPOCH_CHANGED")
    assert stream["old"].said == ["reset", "closed"]


async def test_ten_thousand_bad_opens_that_nobody_reads(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    many = 10_000
    async with (
        serving(nats_server.url) as address,
        raw_stream(address) as bad,
        raw_stream(address) as good,
        asyncio.TaskGroup() as tasks,
    ):

        async def flood() -> None:
            for at in range(many):
                request = pb.OpenSubscription(subscription_id=f"s{at}", filter=pb.Filter(kinds=["cat"]))
                await bad.send(pb.SubscribeRequest(open=request))
            await bad.call.done_writing()

        flooding = tasks.create_task(flood())
        await good.open("a")
        for _ in range(5):
            await writer.commit(Change())
        await good.until(lambda: len(good["a"].events) == 5)
        for at in range(many):
            frame = await bad.read()
            assert frame.subscription_id == f"s{at}"
            assert frame.closed.error.code == codes.ERROR_CODE_INVALID_ARGUMENT
        await flooding
        assert await bad.call.read() is grpc.aio.EOF
        assert await bad.call.code() is grpc.StatusCode.OK


async def test_a_client_that_says_no_more_still_listens(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("a")
        await stream.call.done_writing()
        await stream.caught_up("a")
        for _ in range(3):
            await writer.commit(Change())
        await stream.until(lambda: len(stream["a"].events) == 3)


async def test_a_stream_without_subscriptions_ends_when_its_client_says_no_more(
    nats_server: NatsServer, writer: StreamWriter
) -> None:
    async with serving(nats_server.url) as address, raw_stream(address) as stream:
        await stream.open("bad", pb.Filter(kinds=["cat"]), wait=False)
        await stream.call.done_writing()
        await stream.closed("bad")
        assert await stream.call.read() is grpc.aio.EOF
        assert await stream.call.code() is grpc.StatusCode.OK
