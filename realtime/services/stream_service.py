"""``zephyr.events.v1.StreamService``: one ``ClientStream`` a call, and how all of them end.

Responses are bytes already, and a request that cannot be read is answered like any other
fault, so the handler is registered without a serializer and a deserializer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import grpc

from realtime.auth.checks import authenticate, token_of
from realtime.auth.policy import AllowAll, Policy
from realtime.errors import RealtimeError
from realtime.limits import StreamLimits
from realtime.services.access import StreamAccess
from realtime.services.heartbeats import Heartbeats
from realtime.services.sender import Context
from realtime.services.stream import ClientStream
from realtime.status import abort
from realtime.subscription import Feed

SERVICE = "zephyr.events.v1.StreamService"


class StreamService:
    """Serves Subscribe. ``drain`` tells every client to go, and ends the streams."""

    def __init__(
        self,
        feed: Feed,
        kinds: Collection[str],
        limits: StreamLimits | None = None,
        policy: Policy | None = None,
        auth_warning_s: float = 60,
    ) -> None:
        self._feed = feed
        self._kinds = frozenset(kinds)
        self._limits = limits or StreamLimits()
        self._policy = policy or AllowAll()
        self._auth_warning_s = auth_warning_s
        self._streams: set[ClientStream] = set()
        self._heartbeats = Heartbeats(self._limits.progress_s)
        self._is_draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers."""
        method: Any = grpc.stream_stream_rpc_method_handler(
            self.subscribe, request_deserializer=None, response_serializer=None
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Subscribe": method})

    async def subscribe(self, _: object, context: Context) -> None:
        """One client's stream, from its opening to its end."""
        access = None if isinstance(self._policy, AllowAll) else await self._access(context)
        stream = ClientStream(context, self._feed, self._kinds, self._limits, access)
        if self._is_draining:
            stream.go_away()
        self._streams.add(stream)
        self._heartbeats.add(stream)
        try:
            await stream.run()
        finally:
            self._heartbeats.remove(stream)
            self._streams.discard(stream)

    async def _access(self, context: Context) -> StreamAccess:
        """Ends the call when its caller is not known."""
        try:
            caller = await authenticate(self._policy, token_of(context.invocation_metadata()))
        except RealtimeError as exc:
            await abort(context, exc)
        return StreamAccess(self._policy, caller, self._feed.hub, self._auth_warning_s)

    def drain(self) -> None:
        """Tells every client that the server is about to stop, and lets the streams end after what is queued."""
        self._is_draining = True
        for stream in self._streams:
            stream.go_away()

    @property
    def streams(self) -> int:
        return len(self._streams)
