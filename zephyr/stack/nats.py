"""An embedded NATS server with JetStream on file.

The kernel picks the port (-1) at the first start and the server tells it in its ports file,
which bears its process id; later starts ask for the same port. ``sync_interval`` is one
second: what JetStream acknowledged is on disk a second later, and the bridge holds its slot
back for longer than that.
"""

from __future__ import annotations

import json
from pathlib import Path

import nats
import nats.errors

from zephyr.stack import binaries
from zephyr.stack.process import ChildProcess, environment
from zephyr.stack.server import HOST, Server

SYNC_INTERVAL_S = 1
# An event may have 8 MiB; headers and envelope need room too.
MAX_PAYLOAD = "9MB"
PROBE_TIMEOUT_S = 5

# Go collects its garbage when the heap has grown to five times what lives, not to twice: a fifth less
# CPU in the broker under load, for some 100 MB. Near the limit it collects as often as it must.
_COLLECTOR = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}

CONFIGURATION = """\
server_name: zephyr
host: {host}
port: {port}
ports_file_dir: {folder}
max_payload: {max_payload}
jetstream {{ store_dir: {store}, sync_interval: {sync_interval_s}s }}
"""


class NatsServer(Server):
    """NATS in a folder of its own."""

    name = "nats"
    title = "NATS"

    @property
    def url(self) -> str:
        """Where clients connect.

        Raises:
            RuntimeError: it was never started.
        """
        host, port = self.address
        return f"nats://{host}:{port}"

    async def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)

    def spawn(self) -> ChildProcess:
        for stale in self.data.glob("*.ports"):
            stale.unlink()
        configuration = self.data / "nats.conf"
        text = CONFIGURATION.format(
            host=HOST,
            port=-1 if self.port is None else self.port,
            folder=json.dumps(str(self.data)),
            max_payload=MAX_PAYLOAD,
            store=json.dumps(str(self.data)),
            sync_interval_s=SYNC_INTERVAL_S,
        )
        configuration.write_text(text, encoding="utf-8")
        return ChildProcess.spawn(
            [str(binaries.nats_server()), "-c", str(configuration)], self.log, env=environment(**_COLLECTOR)
        )

    async def answers(self, pid: int) -> bool:
        port = self._port_told_by(pid)
        if port is None:
            return False
        try:
            client = await nats.connect(
                f"nats://{HOST}:{port}", allow_reconnect=False, connect_timeout=PROBE_TIMEOUT_S
            )
        except (OSError, nats.errors.Error):
            return False
        try:
            await client.jetstream(timeout=PROBE_TIMEOUT_S).account_info()
        except (OSError, nats.errors.Error):
            return False
        finally:
            await client.close()
        self.port = port
        return True

    def _port_told_by(self, pid: int) -> int | None:
        """The port from the ports file; None while it is not there or only half written."""
        try:
            told = json.loads((Path(self.data) / f"nats-server_{pid}.ports").read_bytes())
            return int(told["nats"][0].rpartition(":")[2])
        except (FileNotFoundError, json.JSONDecodeError):
            return None
