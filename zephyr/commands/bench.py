"""``zephyr bench``: measures, and says beside each figure what bounds it."""

from __future__ import annotations

from typing import Annotated

import typer

from zephyr.commands.bench_publish import bench_publish
from zephyr.console import CommandError, write_line
from zephyr.measuring import Data, Json, Rounds, measure

app = typer.Typer(no_args_is_help=True, help="Measure, each figure beside its ceiling in the same run.")

app.command("publish")(bench_publish)


@app.command("bridge")
def bench_bridge(
    json: Json = None,
    rows: Annotated[int, typer.Option("--rows", min=10, help="How many changes the WAL holds.")] = 200_000,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", help="Take this one only: loaded or latency. Repeatable.", show_default=False),
    ] = None,
    rows_per_transaction: Annotated[
        list[int] | None,
        typer.Option("--rows-per-transaction", min=1, help="Of the loaded WAL; 1 and 100. Repeatable."),
    ] = None,
    rounds: Rounds = 3,
    transactions_per_second: Annotated[
        list[int] | None,
        typer.Option("--transactions-per-second", min=1, help="Of the latencies; 100 and 5000. Repeatable."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3600, help="How long each rate is kept.")
    ] = 10,
    data: Data = None,
) -> None:
    """Rows a second from a loaded WAL into the stream, and the time from COMMIT to stored.

    The first stands beside a bare reader of the same slot. Starts servers of its own. Exit code 0 says that exactly what was written was stored.
    """
    from bench.bridge import CASES, Options, measure_bridge

    unknown = [name for name in case or () if name not in CASES]
    if unknown:
        raise CommandError(f"there is no case {unknown[0]!r}", f"use one of: {', '.join(CASES)}", 2)
    options = Options(
        case or CASES,
        rows,
        rows_per_transaction or (1, 100),
        rounds,
        transactions_per_second or (100, 5000),
        seconds,
    )
    measure(lambda folder, say: measure_bridge(folder, options, say), json, data)


@app.command("fanout")
def bench_fanout(
    json: Json = None,
    subscribers: Annotated[
        list[int] | None,
        typer.Option("--subscribers", min=1, max=10_000, help="1, 10, 100 and 1000. Repeatable."),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(
            "--client", help="Of this sort only: skim (counts in the bytes) or typed.", show_default=False
        ),
    ] = None,
    deliveries: Annotated[
        int, typer.Option("--deliveries", min=10, help="To all subscribers together, in each round.")
    ] = 5_000_000,
    events: Annotated[
        int, typer.Option("--events", min=10, help="Not more than this in each round.")
    ] = 200_000,
    window: Annotated[
        int, typer.Option("--window", min=1, help="Events that are written ahead of the slowest subscriber.")
    ] = 2000,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Client processes.")] = 1,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """Deliveries a second to many subscribers, beside the same frames written by a bare gRPC handler.

    Starts servers of its own. Exit code 0 says that each subscriber got each event, once and in order.
    """
    from bench.fanout import CLIENTS, Options, measure_fanout

    unknown = [name for name in client or () if name not in CLIENTS]
    if unknown:
        raise CommandError(f"there is no client {unknown[0]!r}", f"use one of: {', '.join(CLIENTS)}", 2)
    options = Options(
        subscribers or (1, 10, 100, 1000), client or CLIENTS, deliveries, events, window, processes, rounds
    )
    measure(lambda folder, say: measure_fanout(folder, options, say), json, data)


@app.command("catchup")
def bench_catchup(
    json: Json = None,
    events: Annotated[int, typer.Option("--events", min=10, help="How many are stored.")] = 1_000_000,
    client: Annotated[str, typer.Option("--client", help="skim (counts in the bytes) or typed.")] = "skim",
    live_subscribers: Annotated[
        int, typer.Option("--live-subscribers", min=1, max=10_000, help="Who feel it.")
    ] = 100,
    live_per_second: Annotated[
        float, typer.Option("--live-per-second", min=1, help="Events that they get meanwhile.")
    ] = 50,
    live_seconds: Annotated[
        float, typer.Option("--live-seconds", min=0.1, max=3600, help="How long, with and without.")
    ] = 10,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """Events a second of one subscriber that reads a long past, and what live subscribers feel of it.

    Beside a bare consumer and a bare gRPC handler. Starts servers of its own. Exit code 0 says that each got each event.
    """
    from bench.catchup import CLIENTS, Options, measure_catchup

    if client not in CLIENTS:
        raise CommandError(f"there is no client {client!r}", f"use one of: {', '.join(CLIENTS)}", 2)
    options = Options(events, client, live_subscribers, live_per_second, live_seconds, rounds)
    measure(lambda folder, say: measure_catchup(folder, options, say), json, data)


@app.command("idle")
def bench_idle(
    json: Json = None,
    streams: Annotated[int, typer.Option("--streams", min=1, help="How many.")] = 10_000,
    streams_per_connection: Annotated[
        int, typer.Option("--streams-per-connection", min=1, help="Of which many share one.")
    ] = 100,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Client processes.")] = 4,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """Memory of an idle stream beside a bare gRPC handler's, and how soon all are back after a restart.

    Starts servers of its own. Exit code 0 says that each got what was written while the server was away, once.
    """
    from bench.idle import Options, measure_idle

    options = Options(streams, streams_per_connection, processes, rounds)
    measure(lambda folder, say: measure_idle(folder, options, say), json, data)


@app.command("match")
def bench_match(
    json: Json = None,
    subscriptions: Annotated[
        list[int] | None,
        typer.Option("--subscriptions", min=1, help="That do not match; 100, 10000 and 100000. Repeatable."),
    ] = None,
    events: Annotated[int, typer.Option("--events", min=10, help="In each round.")] = 50_000,
    window: Annotated[
        int, typer.Option("--window", min=1, help="Events that are written ahead of the slowest server.")
    ] = 2000,
    quiet_s: Annotated[
        float, typer.Option("--quiet-s", min=0.1, max=3600, help="Seconds without events before each round.")
    ] = 10,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """What an event costs the server beside subscriptions that do not want it.

    Starts servers of its own. Exit code 0 says that the one which wants it got each event, and the others none.
    """
    from bench.match import Options, measure_match

    options = Options(subscriptions or (100, 10_000, 100_000), events, window, quiet_s, rounds)
    measure(lambda folder, say: measure_match(folder, options, say), json, data)


@app.command("latency")
def bench_latency(
    json: Json = None,
    idle_per_second: Annotated[
        int, typer.Option("--idle-per-second", min=1, help="Transactions, with the server nearly idle.")
    ] = 100,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            min=1,
            help="Transactions a second under load; half of what a ramp finds when left out.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3600, help="How long each rate is kept.")
    ] = 10,
    data: Data = None,
) -> None:
    """From COMMIT to the client's handler: the server nearly idle, and at half of what the whole way carries.

    Starts servers of its own. Exit code 0 says that the handler got each event, once.
    """
    from bench.handled import Options, measure_handled

    options = Options(idle_per_second, rate, seconds)
    measure(lambda folder, say: measure_handled(folder, options, say), json, data)


@app.command("ceiling")
def show_ceiling(
    name: Annotated[str, typer.Argument(help="The bench whose ceiling to print, such as bridge or fanout.")],
) -> None:
    """Print the program that a bench is measured against."""
    from bench.ceiling import CEILINGS, source_of

    if name not in CEILINGS:
        raise CommandError(f"there is no ceiling {name!r}", f"use one of: {', '.join(CEILINGS)}", 2)
    write_line(source_of(name).rstrip())


@app.command("snapshot")
def bench_snapshot(
    json: Json = None,
    rows: Annotated[int, typer.Option("--rows", min=10, help="How many rows the table has.")] = 1_000_000,
    rounds: Rounds = 3,
    data: Data = None,
) -> None:
    """Rows a second of the first copy of a table into the stream, beside a COPY of the same table.

    Starts servers of its own. Exit code 0 says that each row is stored, once.
    """
    from bench.snapshot import measure_snapshot

    measure(lambda folder, say: measure_snapshot(folder, rows, rounds, say), json, data)
