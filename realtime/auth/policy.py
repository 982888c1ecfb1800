"""The interface between the server and whoever knows its callers."""

# ruff: noqa: ARG002  # the default looks at nothing that it is given

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from realtime.filters import Filter


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``expires_at_s`` is Unix time; None for never."""

    id: str = ""
    expires_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may see; None stands for all. Events of users belong to the workspaces of their members."""

    workspaces: frozenset[str] | None = None
    kinds: frozenset[str] | None = None


class Policy(Protocol):
    """What the server asks. Any ``RequestError`` that it raises is told to the caller as it is, anything
    else as INTERNAL; a coroutine that takes longer than five seconds counts as UNAVAILABLE."""

    async def authenticate(self, token: str) -> Caller:
        """Who has this token: of the call's ``authorization`` metadata without ``Bearer``, or of an in-band
        ``reauth``; empty when there is none.

        Raises:
            Unauthenticated: nobody that is known.
        """
        ...

    async def scope(self, caller: Caller, wanted: Filter) -> Scope:
        """What the caller may see of what is wanted. Asked at the opening, and again when ``version`` changed.

        Raises:
            PermissionDenied: nothing of it.
        """
        ...

    async def publish(self, caller: Caller) -> Scope:
        """Where the caller may publish domain events: in which workspaces (``_`` stands for none), and which kinds.
        A policy that does not say it lets everybody publish everywhere. Asked at the opening of a stream and for
        each call, and again when ``version`` changed.

        Raises:
            PermissionDenied: nowhere.
        """
        return Scope()

    def version(self, caller: Caller) -> int:
        """Another number whenever ``scope`` or ``publish`` may have another answer. Asked before every frame, and for
        every request that publishes: it must be cheap."""
        ...

    def watch(self, caller: Caller, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls ``changed`` in the event loop's thread whenever ``version`` changed, so that a caller for whom
        nothing happens learns of it too. Gives what ends that."""
        ...


class AllowAll(Policy):
    """The default: everybody may see everything. The server does not even ask it."""

    async def authenticate(self, token: str) -> Caller:
        return Caller()

    async def scope(self, caller: Caller, wanted: Filter) -> Scope:
        return Scope()

    def version(self, caller: Caller) -> int:
        return 0

    def watch(self, caller: Caller, changed: Callable[[], None]) -> Callable[[], None]:
        return _nothing


def _nothing() -> None:
    """Ends a watch that never said anything."""
