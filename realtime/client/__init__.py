"""What users import. docs/client.md shows all of it.

    async with Client("127.0.0.1:7400") as client:
        async for event in client.subscribe(workspace=workspace, kinds=["note"], start=earliest()):
            print(event.verb, event.event.note.title)

A request's path, one file a station; wish.py and start.py say what is asked for:

    client.py ─▶ subscription.py ─▶ dialer.py ─▶ connection.py ─▶ gRPC (channel.py, token.py)
                   │  state.py        backoff.py    coverage.py, watchdog.py, window.py
                 keeper.py ─▶ stores.py       aside.py: broadcasts (broadcasts.py) wait there

    draft.py ─▶ publish_calls.py ─▶ gRPC                    (one call each)
             ─▶ publisher.py ─▶ publish_session.py ─▶ gRPC  (pipelined; unacknowledged.py keeps what has no result)
                published.py says what became of it

A subscription reconnects by itself and goes on after its last event; it checks that frames
join without a gap, and raises rather than skip. What comes is bounded by the credit that it grants.

Beside that path, outbox.py puts events into an application's own transaction.
"""

from realtime.client.broadcasts import BroadcastEvent, BroadcastsDropped
from realtime.client.client import Client
from realtime.client.draft import Draft, draft
from realtime.client.listing import EventList
from realtime.client.outbox import emit, emit_async, set_context, set_context_async
from realtime.client.published import Publication, Published
from realtime.client.publisher import Publisher
from realtime.client.received import Batch, ReceivedEvent
from realtime.client.signals import (
    AuthExpiring,
    CaughtUp,
    FellBehind,
    GapPassed,
    Reconnected,
    ScopeChanged,
    Signal,
    SnapshotBegins,
    SnapshotEnds,
)
from realtime.client.start import SnapshotStart, Start, after, at_time, earliest, live, snapshot
from realtime.client.stores import CursorStore, FileCursorStore, MemoryCursorStore, RedisCursorStore
from realtime.client.subscription import (
    BroadcastSignalSubscription,
    BroadcastSubscription,
    SignalSubscription,
    Subscription,
)
from realtime.client.token import TokenProvider
from realtime.client.window import CreditWindow

__all__ = [
    "AuthExpiring",
    "Batch",
    "BroadcastEvent",
    "BroadcastSignalSubscription",
    "BroadcastSubscription",
    "BroadcastsDropped",
    "CaughtUp",
    "Client",
    "CreditWindow",
    "CursorStore",
    "Draft",
    "EventList",
    "FellBehind",
    "FileCursorStore",
    "GapPassed",
    "MemoryCursorStore",
    "Publication",
    "Published",
    "Publisher",
    "ReceivedEvent",
    "Reconnected",
    "RedisCursorStore",
    "ScopeChanged",
    "Signal",
    "SignalSubscription",
    "SnapshotBegins",
    "SnapshotEnds",
    "SnapshotStart",
    "Start",
    "Subscription",
    "TokenProvider",
    "after",
    "at_time",
    "draft",
    "earliest",
    "emit",
    "emit_async",
    "live",
    "set_context",
    "set_context_async",
    "snapshot",
]
