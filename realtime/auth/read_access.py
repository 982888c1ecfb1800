"""What a caller may see of what is answered at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from realtime.auth.checks import authenticate, raise_if_expired, scope_of, token_of
from realtime.auth.policy import AllowAll, Caller, Policy, Scope
from realtime.auth.scope import narrow
from realtime.errors import NotFound
from realtime.filters import Filter

Metadata = Iterable[tuple[str, str | bytes]] | None


class ReadAccess:
    """Asks a policy for the calls of ReadService. ``workspaces_of`` gives those of a user."""

    def __init__(self, policy: Policy, workspaces_of: Callable[[str], Iterable[str]]) -> None:
        self._policy = policy
        self._workspaces_of = workspaces_of

    async def narrow(self, metadata: Metadata, wanted: Filter) -> Filter:
        """What a caller may see of what is wanted.

        Raises:
            RealtimeError: nothing of it, or the caller is not known, or the policy failed.
        """
        scope = await self._scope(metadata, wanted)
        return wanted if scope is None else narrow(wanted, wanted, scope)

    async def caller(self, metadata: Metadata) -> Caller:
        """Who calls; nobody in particular where all may see everything.

        Raises:
            RealtimeError: the caller is not known, or the policy failed.
        """
        if isinstance(self._policy, AllowAll):
            return Caller()
        caller = await authenticate(self._policy, token_of(metadata))
        raise_if_expired(caller, time.time())
        return caller

    async def entity(
        self, metadata: Metadata, kind: str, entity_id: str, caller: Caller | None = None
    ) -> EntityAccess:
        """Whether a caller may read entities of this kind; which ones is asked once they are read. ``caller`` is
        given when it is known already.

        Raises:
            RealtimeError: none of it, or the caller is not known, or the policy failed.
        """
        wanted = Filter(kinds=frozenset((kind,)), entities=frozenset((entity_id,)))
        scope = await self._scope(metadata, wanted, caller)
        if scope is not None:
            narrow(wanted, wanted, scope)
        return EntityAccess(scope, kind, entity_id, self._workspaces_of)

    async def _scope(self, metadata: Metadata, wanted: Filter, caller: Caller | None = None) -> Scope | None:
        if isinstance(self._policy, AllowAll):
            return None
        return await scope_of(self._policy, caller or await self.caller(metadata), wanted)


class EntityAccess:
    """What a caller may see of one entity."""

    def __init__(
        self, scope: Scope | None, kind: str, entity_id: str, workspaces_of: Callable[[str], Iterable[str]]
    ) -> None:
        self._scope = scope
        self._kind = kind
        self._entity_id = entity_id
        self._workspaces_of = workspaces_of

    def check(self, workspace_id: str | None) -> None:
        """Holds the entity's workspace (None for a user: those of the memberships) against the scope.

        Raises:
            NotFound: it is in none that the caller may see; that there is one is not said.
        """
        if self._scope is None or self._scope.workspaces is None:
            return
        own = self._workspaces_of(self._entity_id) if workspace_id is None else (workspace_id,)
        if self._scope.workspaces.isdisjoint(own):
            raise NotFound(self._kind, self._entity_id)
