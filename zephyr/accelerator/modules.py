"""The modules that are compiled: what runs for every row, and what such a module is built from."""

from __future__ import annotations

import hashlib
from pathlib import Path

MODULES = (
    "protos.wire",
    "protos.events.v1.stream_format",
    "bridge.change",
    "bridge.pgoutput",
    "bridge.outgoing",
    "bridge.fields",
    "bridge.draft",
    "bridge.body",
    "bridge.envelope",
    "bridge.plan",
    "bridge.encode",
    "bridge.outbox",
    "bridge.sequencer",
    "bridge.nats_wire",
    "realtime.cursor",
    "realtime.lean",
    "realtime.entry",
    "realtime.point",
    "realtime.delivered",
    "realtime.page",
    "realtime.memberships",
    "realtime.filters",
    "realtime.limits",
    "realtime.history",
    "realtime.mask",
    "realtime.budget",
    "realtime.credit",
    "realtime.terms",
    "realtime.frames",
    "realtime.lane",
    "realtime.backlog",
    "realtime.controls",
    "realtime.turn",
    "realtime.mailbox",
    "realtime.subscriber",
    "realtime.hub",
    "realtime.index",
    "realtime.broadcast.cast",
    "realtime.broadcast.box",
    "realtime.broadcast.audience",
    "realtime.broadcast.row",
    "realtime.handover",
    "realtime.services.turns",
    "realtime.publish.arrivals",
    "realtime.publish.commands",
    "realtime.publish.item",
    "realtime.publish.results",
    "realtime.publish.queue",
    "realtime.publish.draft",
    "realtime.services.publish_results",
)
PACKAGES = ("protos", "bridge", "realtime")
"""Where their imports are looked for, when they are compiled."""


def root() -> Path:
    """The folder in which the packages lie: the source tree, or site-packages."""
    return Path(__file__).resolve().parents[2]


def source_of(module: str) -> Path:
    """The Python file of a module."""
    return root() / f"{module.replace('.', '/')}.py"


def digests() -> dict[str, str]:
    """SHA-256 of each module's source, as it is now.

    Raises:
        OSError: a source cannot be read, as when only compiled files were installed.
    """
    return {module: hashlib.sha256(source_of(module).read_bytes()).hexdigest() for module in MODULES}
