"""``zephyr serve``: the gRPC server."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from realtime.app import Server
from realtime.settings import ServerSettings, load_settings
from zephyr.console import run
from zephyr.files import write_json
from zephyr.logs import configure_logs
from zephyr.signals import on_stop


def serve(
    listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.", envvar="ZEPHYR_LISTEN"),
    ] = None,
    nats_url: Annotated[str | None, typer.Option(help="NATS server.", envvar="ZEPHYR_NATS_URL")] = None,
    postgres_dsn: Annotated[
        str | None,
        typer.Option(help="Postgres, for reads that the cache cannot answer.", envvar="ZEPHYR_POSTGRES_DSN"),
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey.", envvar="ZEPHYR_REDIS_URL")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address to this file once the server serves.")
    ] = None,
) -> None:
    """Serve subscriptions and reads over gRPC, until SIGTERM."""
    configure_logs()
    settings = load_settings(listen=listen, nats_url=nats_url, postgres_dsn=postgres_dsn, redis_url=redis_url)
    run(_serve(settings, ready_file))


async def _serve(settings: ServerSettings, ready_file: Path | None) -> None:
    server = Server(settings)
    on_stop(server.stop)

    def serving(address: str) -> None:
        _spare_the_collector()
        if ready_file is not None:
            write_json(ready_file, {"grpc": address, "pid": os.getpid()})

    await server.run(serving)


def _spare_the_collector() -> None:
    """Events make many objects and no cycles: what stands when the stream was read is kept for long, and a
    collection after each 700 new objects would cost a fifteenth of the speed; few large ones, which stop everything."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 100)
