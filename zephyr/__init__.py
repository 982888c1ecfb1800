"""The front door: the ``zephyr`` command line, the embedded stack, migrations and the demo.

It may import ``bridge`` and ``realtime``; nothing but the harness in ``bench`` imports it.
"""

import os

# Before gRPC is imported anywhere: we start processes, and none of them goes on using its
# parent's channels. Otherwise gRPC remarks at each start that it has nothing to do for it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
