"""One subscription's run at a client: what it has, and how it is opened, also to go on after that."""

from __future__ import annotations

from dataclasses import dataclass

from protos.events.v1.stream_pb2 import AfterStart, Start, SubscribeRequest


@dataclass(slots=True)
class Run:
    """``through`` is -1 before its first frame; ``began`` is where that one began."""

    name: bytes
    workspace: str
    through: int = -1
    began: int = 0
    events: int = 0
    cursor: bytes = b""
    is_ready: bool = False

    def open(self, start: Start) -> bytes:
        """What opens it, after what it has."""
        request = SubscribeRequest()
        request.open.subscription_id = self.name.decode()
        if self.workspace:
            request.open.filter.workspace_ids.append(self.workspace)
        request.open.start.CopyFrom(Start(after=AfterStart(cursor=self.cursor)) if self.cursor else start)
        return request.SerializeToString()
