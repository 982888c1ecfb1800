"""An embedded Valkey server (Redis protocol), which keeps nothing on disk.

Here Redis is a cache: a restart loses it, and whoever fills it has to notice.
"""

from __future__ import annotations

from zephyr.stack import binaries
from zephyr.stack.process import ChildProcess, environment
from zephyr.stack.server import HOST, Server, free_port

PROBE_TIMEOUT_S = 5
DATABASES = 64


class ValkeyServer(Server):
    """Valkey, with its log in a folder of its own."""

    name = "redis"
    title = "Valkey"

    @property
    def url(self) -> str:
        """Where clients connect.

        Raises:
            RuntimeError: it was never started.
        """
        host, port = self.address
        return f"redis://{host}:{port}/0"

    async def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)

    def spawn(self) -> ChildProcess:
        self.port = self.port or free_port()
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.data),
            "databases": str(DATABASES),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ChildProcess.spawn([str(binaries.valkey_server()), *words], self.log, env=environment())

    async def answers(self, pid: int) -> bool:
        # Late: most of the command line needs no Redis, and it is slow to import.
        import redis.asyncio
        import redis.exceptions

        client = redis.asyncio.Redis.from_url(
            self.url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S
        )
        try:
            facts = await client.info("server")
        except (OSError, redis.exceptions.RedisError):
            return False
        finally:
            await client.aclose()
        return bool(facts["process_id"] == pid)
