"""``zephyr demo``: the main job on real input, and the proof that it was done.

    history → replay → Postgres ⇒ bridge ⇒ broker ⇒ server ⇒ subscribers
    (git)       └────── expected events ──────────────────────▶ counted

``git`` reads a repository, ``tree`` turns its changes into changes of notes, ``history`` picks
the repository or the shipped history. ``replay`` writes each commit as one transaction and
writes down every event that must follow; ``subscribers`` listen and hold what they get against
that list; ``proof`` compares the stream and the cache with the tables. ``view`` shows it all,
``run`` puts the parts together.
"""

from __future__ import annotations

import os

# gRPC reads it when it is imported. Else it says at each start of a git process that it could not
# get ready for the fork; what is forked becomes git at once, and has no use for gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
