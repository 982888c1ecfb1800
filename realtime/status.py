"""Errors as gRPC says them, and back.

The one table between this package's errors and google.rpc: the code and the stable
reason (ErrorInfo, domain ``zephyr``), what is wrong in the request (BadRequest), what is
missing (ResourceInfo), when to come again (RetryInfo). The same details stand in a
unary call's rich status and in an ``Error`` inside a stream. The text is the cause, then
the mend; ErrorInfo repeats the mend, so that a client gets both apart again.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]  # it has no marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from protos.common.v1 import error_pb2 as codes
from realtime.errors import (
    AlreadyStored,
    ArgumentInvalid,
    CursorInvalid,
    CursorReset,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    ProducerFenced,
    RealtimeError,
    RequestError,
    SequencePassed,
    SourceUnavailable,
    StoreUnavailable,
    Unauthenticated,
    Unavailable,
    VersionConflict,
)

DOMAIN = "zephyr"
RETRY_S = 1
"""What RetryInfo asks of a client, in seconds."""

_M = TypeVar("_M", bound=Message)
_MEND = "mend"
_MAX_TEXT = 2048  # a status travels in headers, which are bounded to 8 KiB
_MAX_CONFLICTS = 30  # of some 130 bytes each, in the headers' coding
_CONFLICT = re.compile(r"version (\d+), cursor (\S*)\Z")
_CONFLICT_TYPE = "VERSION"

_BY_REASON: dict[str, type[RequestError]] = {
    cls.reason: cls
    for cls in (
        ArgumentInvalid,
        CursorInvalid,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        LimitExceeded,
        Unavailable,
        VersionConflict,
        ProducerFenced,
        AlreadyStored,
        SequencePassed,
    )
}
_BY_CODE: dict[int, type[RequestError]] = {
    codes.ERROR_CODE_INVALID_ARGUMENT: ArgumentInvalid,
    codes.ERROR_CODE_UNAUTHENTICATED: Unauthenticated,
    codes.ERROR_CODE_PERMISSION_DENIED: PermissionDenied,
    codes.ERROR_CODE_NOT_FOUND: NotFound,
    codes.ERROR_CODE_RESOURCE_EXHAUSTED: LimitExceeded,
    codes.ERROR_CODE_UNAVAILABLE: Unavailable,
}
_RESET_REASONS = ("EXPIRED", "EPOCH_CHANGED", "HISTORY_REWRITTEN")


def to_error(exc: BaseException) -> codes.Error:
    """An error as it stands inside a stream. What is no error of ours is INTERNAL, and says no more."""
    error = _as_request_error(exc)
    text = f"{error.message}; {error.mend}" if error.mend else error.message
    metadata = {_MEND: error.mend[:_MAX_TEXT]} if error.mend else {}
    details: list[Message] = [rpc.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        fields = [
            rpc.BadRequest.FieldViolation(field=field, description=description[:_MAX_TEXT])
            for field, description in error.violations
        ]
        details.append(rpc.BadRequest(field_violations=fields))
    if isinstance(error, VersionConflict):
        details.append(rpc.PreconditionFailure(violations=_conflicts(error)))
    if error.resource is not None:
        kind, name = error.resource
        details.append(rpc.ResourceInfo(resource_type=kind, resource_name=name))
    if error.code == codes.ERROR_CODE_UNAVAILABLE:
        retry = rpc.RetryInfo()
        retry.retry_delay.seconds = RETRY_S
        details.append(retry)
    return codes.Error(code=error.code, message=text[:_MAX_TEXT], details=[_pack(item) for item in details])


def to_status(exc: BaseException) -> Status:
    """An error as google.rpc.Status."""
    error = to_error(exc)
    return Status(code=error.code, message=error.message, details=error.details)


async def abort(context: grpc.aio.ServicerContext[Any, Any], exc: BaseException) -> NoReturn:
    """Ends a call with the error's rich status. Never returns: grpc raises in its handler."""
    status = rpc_status.to_status(to_status(exc))
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort returned")


def from_error(error: codes.Error) -> RequestError:
    """The error of this package that ``to_error`` was given, or the nearest."""
    info = _unpack(error, rpc.ErrorInfo())
    mend = info.metadata.get(_MEND, "")
    message = error.message.removesuffix(f"; {mend}") if mend else error.message
    if info.reason in _RESET_REASONS:
        cls: type[RequestError] = CursorReset
    else:
        cls = _BY_REASON.get(info.reason) or _BY_CODE.get(error.code) or RequestError
    # Each class makes its own message from what it is given; here the message is there already.
    result = cls.__new__(cls)
    RequestError.__init__(result, message, mend)
    result.code = error.code
    result.reason = info.reason or cls.reason
    violations = _unpack(error, rpc.BadRequest()).field_violations
    result.violations = tuple((item.field, item.description) for item in violations)
    if isinstance(result, VersionConflict):
        result.conflicts = tuple(
            (item.subject, int(found[1]), base64.b64decode(found[2]))
            for item in _unpack(error, rpc.PreconditionFailure()).violations
            if (found := _CONFLICT.match(item.description)) is not None
        )
    resource = _unpack(error, rpc.ResourceInfo())
    result.resource = (resource.resource_type, resource.resource_name) if resource.resource_type else None
    return result


def from_rpc_error(error: grpc.aio.AioRpcError) -> RealtimeError:
    """The error of this package that a call ended with.

    A status without details comes from gRPC itself: the server is not there, or the deadline passed.
    """
    try:
        status: Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads no more
    except (ValueError, DecodeError):
        status = None
    if status is not None:
        return from_error(
            codes.Error(code=_code(status.code), message=status.message, details=status.details)
        )
    code = _code(error.code().value[0])
    text = error.details() or error.code().name
    if code == codes.ERROR_CODE_UNAVAILABLE:
        return Unavailable(
            f"the server cannot be reached: {text}", "check its address and that zephyr serve runs"
        )
    return from_error(codes.Error(code=code, message=text))


def _as_request_error(exc: BaseException) -> RequestError:
    if isinstance(exc, RequestError):
        return exc
    if isinstance(exc, SourceUnavailable | StoreUnavailable):
        return Unavailable(exc.message, exc.mend)
    result = RequestError("internal error", "see the server's log")
    result.code = codes.ERROR_CODE_INTERNAL
    result.reason = "INTERNAL"
    return result


def _conflicts(error: VersionConflict) -> Iterator[rpc.PreconditionFailure.Violation]:
    for field, version, cursor in error.conflicts[:_MAX_CONFLICTS]:
        text = f"version {version}, cursor {base64.b64encode(cursor).decode()}"
        yield rpc.PreconditionFailure.Violation(type=_CONFLICT_TYPE, subject=field, description=text)


def _code(number: int) -> codes.ErrorCode.ValueType:
    known = number in codes.ErrorCode.values() and number != codes.ERROR_CODE_UNSPECIFIED
    return cast("codes.ErrorCode.ValueType", number) if known else codes.ERROR_CODE_UNKNOWN


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _unpack(error: codes.Error, into: _M) -> _M:
    """The first detail of that type; ``into`` as it was when there is none."""
    for detail in error.details:
        if detail.Unpack(into):
            break
    return into
