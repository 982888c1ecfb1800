"""An embedded Postgres cluster, ready for logical replication.

Postgres refuses to run as root. Started by root it runs as ``nobody``, who owns the cluster's
folder and nothing else; as ``nobody`` may be unable to enter the folders above, the server is
started *in* its folder and told that its data lie in ``/proc/self/cwd``, which needs no way
there, and its binaries are run from a copy that all can reach if need be. So the data stay in
the data folder and no other folder's rights are touched. Trust authentication, on the
loopback interface alone: anybody on this machine may connect, which suits development only.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from zephyr.stack import binaries
from zephyr.stack.errors import StartFailed
from zephyr.stack.open_copy import open_copy, open_to_all
from zephyr.stack.process import ChildProcess, User, environment
from zephyr.stack.server import HOST, Server, free_port

NOBODY = User(65534, 65534)
ROLE = "zephyr"
DATABASE = "zephyr"
# Above the highest process id that Linux gives (2^22).
NO_PROCESS = b"4194305"
PROBE_TIMEOUT_S = 5

SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    # TCP is all that is used, and a socket's path may have 107 bytes only.
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "jit": "off",
}


class PostgresServer(Server):
    """Postgres in a folder of its own, with a role and a database called ``zephyr``.

    ``settings`` add to or replace the server's settings, as with ``postgres -c``.
    """

    name = "postgres"
    title = "Postgres"
    # Fast shutdown, then immediate; clients that do not read may hold up the first.
    stop_steps = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))
    # The processes of a cluster that was killed take a moment to notice.
    passing_troubles = (*Server.passing_troubles, "already exists", "is still in use")

    def __init__(self, data: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data)
        self._settings = {**SETTINGS, **(settings or {})}
        self._cluster = self.data / "cluster"
        self._user = NOBODY if os.geteuid() == 0 else None
        self._install: Path | None = None

    @property
    def dsn(self) -> str:
        """Where clients connect, as a URL.

        Raises:
            RuntimeError: it was never started.
        """
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """The same for another database."""
        host, port = self.address
        return f"postgresql://{ROLE}@{host}:{port}/{database}"

    async def prepare(self) -> None:
        self._install = self._reachable_install()
        if not (self._cluster / "PG_VERSION").exists():
            await self._init_cluster()

    def spawn(self) -> ChildProcess:
        self.port = self.port or free_port()
        self._free_status_file()
        settings = {**self._settings, "port": str(self.port)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._run_in(self._cluster, "postgres", *words, death_signal=signal.SIGQUIT)

    async def answers(self, pid: int) -> bool:
        if not self._says_ready(pid):
            return False
        try:
            connection = await psycopg.AsyncConnection.connect(
                self.dsn_of("postgres"), autocommit=True, connect_timeout=PROBE_TIMEOUT_S
            )
            async with connection:
                known = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if await known.fetchone() is None:
                    await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.OperationalError:
            return False
        return True

    def _says_ready(self, pid: int) -> bool:
        """Whether the cluster's status file is of this process and its status is ready."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _free_status_file(self) -> None:
        """Lets a start go on when the process id of a killed postmaster is another process's now.

        Postgres would refuse as long as that process lives, which happens after a restart of
        a machine or container. The id is replaced, the file stays: Postgres itself must still
        see there whether processes of the killed one use its shared memory.
        """
        status = self._cluster / "postmaster.pid"
        try:
            pid, newline, rest = status.read_bytes().partition(b"\n")
            process = Path("/proc", pid.strip().decode("ascii")) / "stat"
            name, _, state = process.read_text(encoding="utf-8").partition("(")[2].rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            return  # no status file, no such process, or no /proc: nothing to tell apart
        if name != "postgres" or state.startswith("Z"):
            with status.open("r+b") as stream:
                stream.write(NO_PROCESS + newline + rest)

    async def _init_cluster(self) -> None:
        """Makes the cluster under another name first, so that one that is there is whole."""
        fresh = self._make_fresh_folder()
        child = self._run_in(
            fresh,
            "initdb",
            f"--username={ROLE}",
            "--encoding=UTF8",
            # Built in, so that it sorts alike wherever it runs.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--auth=trust",
            *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
        )
        try:
            code = await child.wait()
        finally:
            child.kill()
        if code != 0:
            raise StartFailed(
                f"initdb could not make the Postgres cluster: {self.log.cause() or f'exit code {code}'}",
                f"see its log in {self.log.path}",
            )
        fresh.rename(self._cluster)

    def _make_fresh_folder(self) -> Path:
        self.data.mkdir(parents=True, exist_ok=True)
        fresh = self.data / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(fresh, self._user.uid, self._user.gid)
        return fresh

    def _run_in(
        self, folder: Path, program: str, *words: str, death_signal: signal.Signals = signal.SIGKILL
    ) -> ChildProcess:
        assert self._install is not None
        by_working_folder = self._user is not None and sys.platform == "linux"
        return ChildProcess.spawn(
            [
                str(self._install / "bin" / program),
                "-D",
                "/proc/self/cwd" if by_working_folder else str(folder),
                *words,
            ],
            self.log,
            # A known zone spares initdb from comparing all of them with the system's.
            env=environment(TZ="UTC", LC_ALL="C"),
            cwd=folder,
            user=self._user,
            death_signal=death_signal,
        )

    def _reachable_install(self) -> Path:
        install = binaries.postgres_install()
        if self._user is None or open_to_all(install / "bin" / "postgres"):
            return install
        return open_copy(install, binaries.postgres_version())
