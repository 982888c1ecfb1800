"""Why a call is over, as an error of this package."""

from __future__ import annotations

from typing import Any

import grpc

from realtime.errors import RealtimeError, RequestError, Unavailable
from realtime.status import from_rpc_error


async def why_ended(call: grpc.aio.StreamStreamCall[Any, Any]) -> RealtimeError:
    """The status of a call that is over, or that the server ended it."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return Unavailable("the server ended the stream")
    error = grpc.aio.AioRpcError(
        code,
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )
    return translated(error)


def translated(exc: grpc.aio.AioRpcError) -> RealtimeError:
    """What a call ended with. Without the server's own reason gRPC made these up: of a stream that was reset, or
    that a request was just being written to when it ended."""
    error = from_rpc_error(exc)
    has_reason = isinstance(error, RequestError) and error.reason != RequestError.reason
    if exc.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL) and not has_reason:
        return Unavailable(f"the stream broke: {error.message}", error.mend)
    return error
