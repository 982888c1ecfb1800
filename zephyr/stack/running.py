"""The whole stack as one context manager.

Servers, then the migrations, then the bridge, then the server that clients talk to; then the
supervisor watches all of them. Closing goes the other way round: nothing is started again,
the server drains, the bridge ends, the servers stop. The addresses are told in one JSON file,
which is there exactly while they hold.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zephyr
from zephyr.files import write_json
from zephyr.stack.errors import StartFailed
from zephyr.stack.log import LogFile
from zephyr.stack.nats import SYNC_INTERVAL_S
from zephyr.stack.part import Part, PartProcess
from zephyr.stack.process import ChildProcess
from zephyr.stack.stack import ADDRESSES_FILE, Stack
from zephyr.stack.supervisor import Notice, Supervisor

ZEPHYR = (sys.executable, "-m", "zephyr")
MIGRATE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Commands:
    """What is run; bridge and server get ``--ready-file FILE`` appended."""

    migrate: Sequence[str] = (*ZEPHYR, "migrate")
    bridge: Sequence[str] = (*ZEPHYR, "bridge", "run")
    server: Sequence[str] = (*ZEPHYR, "serve")


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Where everything is, and the supervisor to kill, stop or restart a part by its name."""

    grpc: str
    nats: str
    postgres: str
    redis: str
    data: Path
    supervisor: Supervisor

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of bridge, server, nats, postgres and redis, as they are now."""
        now = self.supervisor.pids
        return {name: now[name] for name in ("bridge", "server", "nats", "postgres", "redis")}

    def addresses(self) -> dict[str, Any]:
        """What ``zephyr up --json`` writes."""
        return {
            "grpc": self.grpc,
            "nats": self.nats,
            "postgres": self.postgres,
            "redis": self.redis,
            "data": str(self.data),
            "pids": self.pids,
        }


@asynccontextmanager
async def running_stack(
    data: Path,
    listen: str = "127.0.0.1:0",
    *,
    json_file: Path | None = None,
    on_notice: Callable[[Notice], None] = lambda _: None,
    commands: Commands | None = None,
    postgres_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningStack]:
    """Runs everything on the folder ``data``, which is made if need be and kept.

    The addresses are written to ``data/stack.json``, and to ``json_file`` if given, once all
    is ready; again whenever a part was restarted; and removed at the end.

    Raises:
        DataInUse: another stack runs on ``data``.
        BinaryMissing, StartFailed, PlaceUnsafe: something could not be started.
    """
    commands = commands or Commands()
    async with AsyncExitStack() as closing:
        stack = await closing.enter_async_context(Stack(data, postgres_settings))
        # Ours last: `zephyr up --detach` waits for it, and then the other is there too.
        files = [*([json_file] if json_file else []), stack.data / ADDRESSES_FILE]
        _remove(files)
        env = _environment(stack, listen)
        await _migrate(commands.migrate, env, LogFile(stack.data / "migrate" / "migrate.log"))
        parts: list[PartProcess] = []
        for name, argv in (("bridge", commands.bridge), ("server", commands.server)):
            part = PartProcess(_part(name, argv, env, stack.data / name))
            closing.push_async_callback(part.stop)
            await part.start()
            parts.append(part)
        supervisor = Supervisor(
            [*stack.servers, *parts], on_restart=lambda: _write(files, up), on_notice=on_notice
        )
        up = RunningStack(
            grpc=_address_of(parts[1]),
            nats=stack.nats.url,
            postgres=stack.postgres.dsn,
            redis=stack.redis.url,
            data=stack.data,
            supervisor=supervisor,
        )
        closing.callback(_remove, files)
        _write(files, up)
        await closing.enter_async_context(supervisor)
        yield up


def package_environment() -> dict[str, str]:
    """Ours, in which ``python -m zephyr`` finds this very package wherever it is started."""
    package_root = str(Path(zephyr.__file__).resolve().parent.parent)
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        # A folder called zephyr where we were started is not this package.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _environment(stack: Stack, listen: str) -> dict[str, str]:
    """What bridge, server and migrations read."""
    return package_environment() | {
        "ZEPHYR_NATS_URL": stack.nats.url,
        "ZEPHYR_POSTGRES_DSN": stack.postgres.dsn,
        "ZEPHYR_REDIS_URL": stack.redis.url,
        "ZEPHYR_LISTEN": listen,
        # Confirmed only what the broker has surely synced: its interval, and once more.
        "ZEPHYR_BRIDGE_HOLD_BACK_S": str(2 * SYNC_INTERVAL_S),
    }


async def _migrate(argv: Sequence[str], env: Mapping[str, str], log: LogFile) -> None:
    child = ChildProcess.spawn(argv, log, env=env)
    try:
        async with asyncio.timeout(MIGRATE_TIMEOUT_S):
            code = await child.wait()
    except TimeoutError as error:
        raise StartFailed(
            f"the migration did not end within {MIGRATE_TIMEOUT_S:.0f} s", f"see its log in {log.path}"
        ) from error
    finally:
        child.kill()
    if code != 0:
        reason = log.cause() or f"exit code {code}"
        raise StartFailed(f"the migration failed: {reason}", f"see its log in {log.path}")


def _part(name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> Part:
    ready_file = folder / "ready.json"
    return Part(
        name=name,
        argv=[*argv, "--ready-file", str(ready_file)],
        env=env,
        ready_file=ready_file,
        log_file=folder / f"{name}.log",
    )


def _address_of(server: PartProcess) -> str:
    address = server.ready.get("grpc")
    if not isinstance(address, str):
        raise StartFailed("server did not tell its address", "its ready file needs the key `grpc`")
    return address


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _write(files: Sequence[Path], up: RunningStack) -> None:
    for file in files:
        write_json(file, up.addresses())
