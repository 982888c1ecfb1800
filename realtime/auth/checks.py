"""Asking a policy: bounded in time, and its faults translated."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import structlog

from realtime.auth.policy import Caller, Policy, Scope
from realtime.errors import PolicyFailed, RealtimeError, Unauthenticated, Unavailable
from realtime.filters import Filter

log = structlog.get_logger("auth")

POLICY_WAIT_S = 5.0
"""How long a policy may take for one answer."""

_T = TypeVar("_T")


def token_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The token of a call's ``authorization`` metadata; empty when there is none."""
    for key, value in metadata or ():
        if key == "authorization":
            return bare(value if isinstance(value, str) else value.decode("utf-8", "replace"))
    return ""


def bare(token: str) -> str:
    """A token without the scheme's name before it."""
    return token[7:].strip() if token[:7].lower() == "bearer " else token


async def authenticate(policy: Policy, token: str) -> Caller:
    """Who has a token.

    Raises:
        Unauthenticated: nobody that is known.
        RealtimeError: what the policy says, or that it failed.
    """
    return await _ask(policy.authenticate(token))


async def scope_of(policy: Policy, caller: Caller, wanted: Filter) -> Scope:
    """What a caller may see.

    Raises:
        RealtimeError: what the policy says, or that it failed.
    """
    return await _ask(policy.scope(caller, wanted))


async def publish_scope_of(policy: Policy, caller: Caller) -> Scope:
    """Where a caller may publish.

    Raises:
        RealtimeError: what the policy says, or that it failed.
    """
    return await _ask(policy.publish(caller))


def version_of(policy: Policy, caller: Caller) -> int:
    """The number of the caller's permissions.

    Raises:
        RealtimeError: what the policy says, or that it failed.
    """
    try:
        return policy.version(caller)
    except RealtimeError:
        raise
    except Exception as exc:
        raise _failed(exc) from exc


def raise_if_expired(caller: Caller, now_s: float) -> None:
    """Raises:
    Unauthenticated: the caller's authorization has ended.
    """
    if caller.expires_at_s is not None and caller.expires_at_s <= now_s:
        raise Unauthenticated("the authorization has expired", "get a new token")


async def _ask(answer: Coroutine[Any, Any, _T]) -> _T:
    try:
        async with asyncio.timeout(POLICY_WAIT_S):
            return await answer
    except RealtimeError:
        raise
    except TimeoutError as exc:
        raise Unavailable("the policy does not answer", "try again") from exc
    except Exception as exc:
        raise _failed(exc) from exc


def _failed(exc: Exception) -> PolicyFailed:
    log.error("the policy failed", exc_info=exc)
    return PolicyFailed(f"the policy failed: {type(exc).__name__}")
