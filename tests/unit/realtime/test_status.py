"""Errors to google.rpc and back: nothing that a client acts on is lost on the way."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]  # it has no marker
from grpc.aio import AioRpcError, Metadata
from grpc_status import rpc_status

from protos.common.v1 import error_pb2 as codes
from realtime.errors import (
    ArgumentInvalid,
    CursorInvalid,
    CursorReset,
    LimitExceeded,
    NotFound,
    RequestError,
    SourceUnavailable,
    StoreUnavailable,
    Unavailable,
)
from realtime.status import from_error, from_rpc_error, to_error, to_status

ERRORS = [
    ArgumentInvalid("id", "'x' is no UUID", "give a UUID"),
    ArgumentInvalid("id", "'x' is no UUID"),
    CursorInvalid("it is not URL-safe base64"),
    CursorReset("EXPIRED", "the stream begins after it"),
    CursorReset("EPOCH_CHANGED", "it is of another epoch"),
    CursorReset("HISTORY_REWRITTEN", "something else stands there"),
    NotFound("note", "22222222-2222-4222-8222-222222222222"),
    LimitExceeded("1000 subscriptions are open", "close some"),
    Unavailable("Postgres cannot be reached now", "try again"),
]


def rpc_error(exc: BaseException) -> AioRpcError:
    """What a client's call ends with when a server aborts with ``exc``."""
    status = rpc_status.to_status(to_status(exc))
    return AioRpcError(status.code, Metadata(), Metadata(*(status.trailing_metadata or ())), status.details)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.reason}")
def test_an_error_comes_back_as_it_was(error: RequestError) -> None:
    for back in (from_error(to_error(error)), from_rpc_error(rpc_error(error))):
        assert isinstance(back, RequestError)
        assert type(back) is type(error)
        assert (back.message, back.mend) == (error.message, error.mend)
        assert (back.code, back.reason) == (error.code, error.reason)
        assert (back.violations, back.resource) == (tuple(error.violations), error.resource)
        assert str(back) == error.message


def test_the_text_is_the_cause_then_the_mend() -> None:
    assert to_error(ERRORS[0]).message == "id: 'x' is no UUID; give a UUID"


def test_the_details_are_those_of_google_rpc() -> None:
    error = to_error(ERRORS[0])
    info, bad = rpc.ErrorInfo(), rpc.BadRequest()
    assert error.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "ARGUMENT_INVALID",
        "zephyr",
        {"mend": "give a UUID"},
    )
    assert error.details[1].Unpack(bad)
    assert [(item.field, item.description) for item in bad.field_violations] == [("id", "'x' is no UUID")]

    resource = rpc.ResourceInfo()
    assert to_error(NotFound("note", "n")).details[1].Unpack(resource)
    assert (resource.resource_type, resource.resource_name) == ("note", "n")

    retry = rpc.RetryInfo()
    assert to_error(Unavailable("away")).details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


@pytest.mark.parametrize("error", [SourceUnavailable("no broker", "start it"), StoreUnavailable("no Redis")])
def test_a_server_that_is_away_is_unavailable(error: SourceUnavailable | StoreUnavailable) -> None:
    back = from_error(to_error(error))
    assert type(back) is Unavailable
    assert (back.message, back.mend) == (error.message, error.mend)


def test_a_bug_says_nothing_of_the_inside() -> None:
    error = to_error(ZeroDivisionError("secret"))
    assert error.code == codes.ERROR_CODE_INTERNAL
    assert "secret" not in str(error)
    assert from_error(error).reason == "INTERNAL"


def test_a_long_text_does_not_burst_the_headers() -> None:
    status = to_status(ArgumentInvalid("id", "x" * 100_000, "y" * 100_000))
    assert status.ByteSize() < 8192


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INVALID_ARGUMENT, ArgumentInvalid),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, RequestError),
    ],
)
def test_a_status_without_details_goes_by_its_code(
    code: grpc.StatusCode, expected: type[RequestError]
) -> None:
    error = from_rpc_error(AioRpcError(code, Metadata(), Metadata(), "it says so"))
    assert isinstance(error, expected)
    assert error.code == code.value[0]
    assert "it says so" in error.message
