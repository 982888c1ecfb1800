"""``zephyr up``: the whole system on this machine, until Ctrl-C.

In the foreground it is the supervisor itself. With ``--detach`` it starts the same command
as a session of its own and waits for its addresses: the data folder's lock, signed by that
process, says that the addresses beside it are of this run and of no former one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from zephyr.console import EXIT_INTERRUPTED, CommandError, console, run
from zephyr.stack.lock import DataLock
from zephyr.stack.log import LogFile
from zephyr.stack.running import ZEPHYR, package_environment, running_stack
from zephyr.stack.stack import ADDRESSES_FILE, make_data_folder
from zephyr.stack.supervisor import Notice

DEFAULT_DATA = Path(".zephyr")
DETACH_TIMEOUT_S = 180.0
POLL_S = 0.05

PARTS = {"server": "grpc", "bridge": None, "nats": "nats", "postgres": "postgres", "redis": "redis"}

DataOption = Annotated[
    Path,
    typer.Option(
        "--data", help="Folder of all data and logs; made if need be, kept afterwards.", metavar="DIR"
    ),
]


def up(
    data: DataOption = DEFAULT_DATA,
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            envvar="ZEPHYR_LISTEN",
            help="Where the gRPC server listens; port 0 takes a free one.",
            metavar="HOST:PORT",
        ),
    ] = "127.0.0.1:0",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write addresses and process ids here once all is ready; removed at the end.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Return once all is ready; `zephyr down` stops it."),
    ] = False,
) -> None:
    """Starts NATS, Postgres and Valkey from their wheels, then bridge and server on them.

    A second `up` on the same folder goes on with its data. Ctrl-C stops all of it.
    """
    data = data.absolute()
    json_file = json_file.absolute() if json_file else None
    if json_file is not None and not json_file.parent.is_dir():
        raise CommandError(f"there is no folder {json_file.parent} for --json", "make it first", exit_code=2)
    if detach:
        run(_detach(data, listen, json_file))
    else:
        run(_up(data, listen, json_file))


async def _up(data: Path, listen: str, json_file: Path | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    # The first signal ends all gracefully, a second one cuts the waiting for that short.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    was_ready = False
    starting = console.status("starting NATS, Postgres, Valkey, bridge and server")
    try:
        starting.start()
        async with running_stack(data, listen, json_file=json_file, on_notice=_show_notice) as stack:
            was_ready = True
            starting.stop()
            _show_addresses(stack.addresses())
            console.print("press Ctrl-C to stop")
            try:
                await asyncio.Event().wait()
            finally:
                console.print("stopping")
    except asyncio.CancelledError:
        if not was_ready:
            raise CommandError("interrupted before all was ready", exit_code=EXIT_INTERRUPTED) from None
    finally:
        starting.stop()


async def _detach(data: Path, listen: str, json_file: Path | None) -> None:
    make_data_folder(data)
    log = LogFile(data / "up.log")
    process = _start_session(data, listen, json_file, log)
    try:
        async with asyncio.timeout(DETACH_TIMEOUT_S):
            while (addresses := _addresses_of(data, process.pid)) is None:
                if (code := process.poll()) is not None:
                    raise _failure(code, log)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        process.terminate()
        raise CommandError(
            f"not ready within {DETACH_TIMEOUT_S:.0f} s: {log.cause()}", f"see the logs in {data}"
        ) from None
    except asyncio.CancelledError:
        process.terminate()
        raise
    _show_addresses(addresses)
    console.print(f"stop it with `zephyr down --data {data}`")


def _start_session(data: Path, listen: str, json_file: Path | None, log: LogFile) -> subprocess.Popen[bytes]:
    argv = [*ZEPHYR, "up", "--data", str(data), "--listen", listen]
    argv += ["--json", str(json_file)] if json_file else []
    with log.open() as stream:
        return subprocess.Popen(
            argv,
            env=package_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _addresses_of(data: Path, pid: int) -> Mapping[str, Any] | None:
    """The addresses, once process ``pid`` has written them."""
    if DataLock.signature(data) != pid:
        return None
    try:
        addresses: Mapping[str, Any] = json.loads((data / ADDRESSES_FILE).read_bytes())
    except FileNotFoundError:
        return None
    return addresses


def _failure(code: int, log: LogFile) -> CommandError:
    line = log.cause().removeprefix("error: ") or f"ended with exit code {code}"
    message, _, mend = line.partition(" — ")
    return CommandError(message, mend, exit_code=code if code > 0 else 1)


def _show_addresses(addresses: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("part", "address", "process"):
        # Addresses are for copying: never cut, never wrapped.
        table.add_column(column, no_wrap=True, overflow="ignore")
    for part, key in PARTS.items():
        table.add_row(part, addresses[key] if key else "", str(addresses["pids"][part]))
    console.print(table)
    console.print(f"data and logs are in {addresses['data']}")


def _show_notice(notice: Notice) -> None:
    console.print(Text.assemble((notice.name, "bold"), " ", notice.text))
