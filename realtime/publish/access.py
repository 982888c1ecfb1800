"""Where a caller may publish, while its call lasts. Nothing of it runs under the default policy."""

from __future__ import annotations

import time

from protos.events.v1.publish_pb2 import NewEvent
from realtime.auth.checks import (
    authenticate,
    publish_scope_of,
    raise_if_expired,
    token_of,
    version_of,
)
from realtime.auth.policy import AllowAll, Caller, Policy, Scope
from realtime.auth.read_access import Metadata
from realtime.errors import PermissionDenied


class PublishAccess:
    """One call's caller, and what it may. ``refresh`` before each request, then ``check`` each event."""

    def __init__(self, policy: Policy, caller: Caller) -> None:
        self._policy = policy
        self.caller = caller
        self._is_asked = not isinstance(policy, AllowAll)
        self._version: int | None = None
        self._scope = Scope()

    async def refresh(self) -> None:
        """Asks the policy, unless its answer is the one of before.

        Raises:
            RealtimeError: the caller may publish nowhere (any more), or the policy failed.
        """
        if not self._is_asked:
            return
        raise_if_expired(self.caller, time.time())
        version = version_of(self._policy, self.caller)
        if version != self._version:
            self._scope = await publish_scope_of(self._policy, self.caller)
            self._version = version

    @property
    def is_limited(self) -> bool:
        """Whether ``check`` may refuse anything."""
        return self._scope.workspaces is not None or self._scope.kinds is not None

    def check(self, new: NewEvent) -> None:
        """Raises:
        PermissionDenied: not this event.
        """
        scope = self._scope
        if scope.workspaces is not None and new.workspace_id.lower() not in scope.workspaces:
            raise PermissionDenied("the caller may not publish to this workspace", "ask for the right to")
        if scope.kinds is not None and new.kind not in scope.kinds:
            raise PermissionDenied(
                f"the caller may not publish the kind {new.kind!r}", "ask for the right to"
            )


async def admit(policy: Policy, metadata: Metadata) -> PublishAccess:
    """Who calls, and where it may publish.

    Raises:
        RealtimeError: nobody that is known, or nowhere, or the policy failed.
    """
    caller = Caller() if isinstance(policy, AllowAll) else await authenticate(policy, token_of(metadata))
    access = PublishAccess(policy, caller)
    await access.refresh()
    return access
