"""What a subscription was told so far, and what each frame means after it. No I/O.

``cursor`` is the place to go on after. While a snapshot is folded there is none: if it breaks off, it begins
again, and what was folded is said to be void. Two snapshots are never mixed.
"""

from __future__ import annotations

from typing import Literal

from protos.events.v1 import stream_pb2 as pb
from realtime.client import signals as said
from realtime.client.broadcasts import Broadcast, broadcasts
from realtime.client.received import Batch, received
from realtime.client.start import SnapshotStart, Start
from realtime.errors import CursorReset, Gap, RealtimeError, Unavailable
from realtime.status import from_error

LOST = "CONNECTION_LOST"


class State:
    """Of one subscription. ``tells_all``: signals that nobody needs for being right are told as well."""

    def __init__(
        self, start: Start | SnapshotStart, *, tells_all: bool, on_gap: Literal["raise", "continue"]
    ) -> None:
        self._start = start
        self._tells_all = tells_all
        self._tells_scope = tells_all or on_gap == "continue" or isinstance(start, SnapshotStart)
        self._on_gap = on_gap
        self._reset: pb.Reset | None = None
        self._void: str | None = None  # why another snapshot begins, until that was said
        self._cause: str | None = None  # why another connection goes on, until that was said
        self._was_ready = False
        self.is_folding = isinstance(start, SnapshotStart)
        if self.is_folding:
            self._void = ""
        self.cursor = start.cursor if isinstance(start, Start) else b""
        self.is_ready = False
        self.is_caught_up = False
        self.source = pb.SourcePosition()
        self.lost_workspaces: frozenset[str] = frozenset()
        self.reconnections = 0

    def resume(self, cursor: bytes) -> None:
        """Goes on after a cursor of an earlier run, if there is one."""
        if cursor:
            self.cursor, self.is_folding, self._void = cursor, False, None

    def next_start(self) -> Start | SnapshotStart:
        """Where the next connection begins."""
        return Start.after(self.cursor) if self.cursor else self._start

    def lost(self, cause: RealtimeError) -> None:
        """The connection is over."""
        self.is_ready = self.is_caught_up = False
        self._reset = None
        if self._was_ready:
            self._cause = cause.message
        if self.is_folding and self._void is None:
            self._void = LOST

    def take(self, frame: pb.SubscribeResponse) -> tuple[Batch | said.Signal | Broadcast, ...]:
        """What a frame gives to hand out.

        Raises:
            Unavailable: the subscription must be opened anew.
            CursorReset: the position cannot be served.
            Gap: messages are gone from the stream.
            RealtimeError: the server closed the subscription with it.
        """
        kind = frame.WhichOneof("response")
        if kind == "closed":
            raise self._closed(frame.closed)
        if kind == "gap" and self._on_gap == "raise":
            raise Gap(frame.gap.after, frame.gap.through)
        if kind == "events":
            items = received(frame.events.events)
            if items:  # its cursor is passed on with what it holds
                return (Batch(items, frame.cursor, frame.events.transaction_open),)
        if kind == "broadcasts":
            return broadcasts(frame.broadcasts)
        if kind == "snapshot_page":
            page = frame.snapshot_page
            items = received(page.items)
            return (Batch(items, b"", False, True, page.corrections),) if items else ()
        if kind == "snapshot_end":
            self.is_folding = False
            self.cursor = frame.cursor
            return (said.SnapshotEnds(frame.cursor, frame.snapshot_end.items),)
        if kind == "reset":
            return self._take_reset(frame.reset)
        if not self.is_folding:
            self.cursor = frame.cursor or self.cursor
        return self._take_control(frame)

    def _take_control(self, frame: pb.SubscribeResponse) -> tuple[said.Signal, ...]:
        kind = frame.WhichOneof("response")
        if kind == "ready":
            return self._ready(frame.ready)
        if kind == "gap":
            return (said.GapPassed(frame.gap.after, frame.gap.through),)
        if kind == "progress":
            self.source = frame.progress.source
        elif kind == "scope_changed":
            changed = frame.scope_changed
            self.lost_workspaces |= frozenset(changed.lost_workspace_ids)
            if self._tells_scope:
                return (said.ScopeChanged(tuple(changed.lost_workspace_ids), changed.reason),)
        elif kind == "caught_up":
            self.is_caught_up = True
            self.source = frame.caught_up.source
            return self._if_all(said.CaughtUp(self.source))
        elif kind == "fell_behind":
            self.is_caught_up = False
            if frame.fell_behind.HasField("source"):
                self.source = frame.fell_behind.source
            return self._if_all(said.FellBehind(frame.fell_behind.reason, self.source))
        elif kind == "auth_expiring":
            return self._if_all(said.AuthExpiring(frame.auth_expiring.expires_at))
        return ()

    def _if_all(self, signal: said.Signal) -> tuple[said.Signal, ...]:
        return (signal,) if self._tells_all else ()

    def _ready(self, ready: pb.Ready) -> tuple[said.Signal, ...]:
        self.is_ready = True
        self.source = ready.source
        self._was_ready = True
        result: tuple[said.Signal, ...] = ()
        if self._cause is not None:  # another snapshot on the same connection is opened anew as well
            self.reconnections += 1
            result = self._if_all(said.Reconnected(self._cause))
            self._cause = None
        if self._void is not None:
            result += (said.SnapshotBegins(self._void),)
            self._void = None
        return result

    def _take_reset(self, reset: pb.Reset) -> tuple[said.Signal, ...]:
        reason = _reason(reset)
        gives_up = reset.action == pb.RESET_ACTION_GIVE_UP
        if not isinstance(self._start, SnapshotStart) or gives_up:
            self._reset = reset  # `closed` follows, with the sentence
            return ()
        self.cursor = b""
        self.is_folding = True
        if reset.action == pb.RESET_ACTION_AWAIT_SNAPSHOT:
            return (said.SnapshotBegins(reason),)
        # It was opened after a cursor: the snapshot that its user wants is to be asked for.
        self._void = reason
        raise Unavailable(f"the position cannot be served ({reason}): a new snapshot is needed")

    def _closed(self, closed: pb.Closed) -> RealtimeError:
        if not closed.error.code:
            return Unavailable("the subscription was closed")
        error = from_error(closed.error)
        reset, self._reset = self._reset, None
        if reset is None:
            return error
        result = CursorReset(_reason(reset), error.message)
        result.code = error.code
        result.mend = error.mend or result.mend
        result.earliest_cursor = reset.earliest_cursor
        result.action = pb.ResetAction.Name(reset.action).removeprefix("RESET_ACTION_")
        return result


def _reason(reset: pb.Reset) -> str:
    if reset.reason not in pb.ResetReason.values():
        return str(reset.reason)
    return pb.ResetReason.Name(reset.reason).removeprefix("RESET_REASON_")
