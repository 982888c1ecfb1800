"""The embedded stack: NATS, Postgres and Valkey from their wheels, bridge and server beside them.

    running_stack          everything, as one context manager          (running.py)
    ├── Stack              the data folder's lock, the three servers   (stack.py)
    │   └── NatsServer, PostgresServer, ValkeyServer                   (server.py is their base)
    ├── Part               bridge or server: a command of ours         (part.py)
    └── Supervisor         starts again what dies                      (supervisor.py)

Every process is a ``ChildProcess`` (process.py): none outlives the one that started it.
"""

from zephyr.stack.errors import StackError
from zephyr.stack.running import RunningStack, running_stack

__all__ = ["RunningStack", "StackError", "running_stack"]
