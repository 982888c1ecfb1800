"""``zephyr bench publish``: what publishing carries, and how long one event takes."""

from __future__ import annotations

from typing import Annotated

import typer

from zephyr.console import CommandError
from zephyr.measuring import Data, Json, Rounds, measure


def bench_publish(
    json: Json = None,
    events: Annotated[int, typer.Option("--events", min=10, help="Of each client, in each round.")] = 100_000,
    event_bytes: Annotated[int, typer.Option("--event-bytes", min=150, max=100_000, help="Of one.")] = 250,
    in_flight: Annotated[
        int, typer.Option("--in-flight", min=1, help="Events without a result, at most; of every client.")
    ] = 4000,
    case: Annotated[
        list[str] | None,
        typer.Option(
            "--case", help="Take this one only: stream, single or broadcast. Repeatable.", show_default=False
        ),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(
            "--client", help="Of this sort only: skim (works on bytes) or typed.", show_default=False
        ),
    ] = None,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Of Publish, one after the other.")] = 2000,
    listeners: Annotated[
        int, typer.Option("--listeners", min=1, max=10_000, help="Of the broadcasts.")
    ] = 1000,
    broadcasts: Annotated[int, typer.Option("--broadcasts", min=1, help="How many.")] = 100,
    broadcasts_per_second: Annotated[
        float, typer.Option("--broadcasts-per-second", min=0.1, help="How many of them a second.")
    ] = 10,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """Events a second through PublishStream, beside nats-py and a bare socket; and how long one Publish takes,
    and a broadcast to many.

    Starts servers of its own. Exit code 0 says that each event is stored once, at the place that its result says.
    """
    from bench.publish import CASES, CLIENTS, Options, measure_publish

    for given, known in ((case, CASES), (client, CLIENTS)):
        unknown = [name for name in given or () if name not in known]
        if unknown:
            raise CommandError(f"there is no {unknown[0]!r}", f"use one of: {', '.join(known)}", 2)
    options = Options(
        case or CASES, client or CLIENTS, events, event_bytes, in_flight, calls,
        listeners, broadcasts, broadcasts_per_second, rounds,
    )  # fmt: skip
    measure(lambda folder, say: measure_publish(folder, options, say), json, data)
