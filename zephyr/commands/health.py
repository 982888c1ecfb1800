"""``zephyr health``: does a server serve?"""

from __future__ import annotations

from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from zephyr.console import CommandError, output, run

EXIT_UNREACHABLE = 3


def health(
    target: Annotated[str, typer.Option(help="HOST:PORT of the server.")] = "127.0.0.1:7400",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 5,
) -> None:
    """Ask a server for its health; exits with 0 when it serves."""
    run(_check(target, timeout))
    output.print("SERVING")


async def _check(target: str, timeout_s: float) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs have no methods
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise CommandError(
                f"{target} does not answer: {exc.details()}", "start it with: zephyr serve", EXIT_UNREACHABLE
            ) from exc
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise CommandError(f"{target} says {name}", "see its log: is the stream there?", 1)
