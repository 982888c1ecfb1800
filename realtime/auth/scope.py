"""What is left of a filter under a scope."""

from __future__ import annotations

from dataclasses import replace

from realtime.auth.policy import Scope
from realtime.errors import PermissionDenied
from realtime.filters import Filter, check_size


def narrow(asked: Filter, current: Filter, scope: Scope) -> Filter:
    """What a subscription may still be given, of the ``current`` filter that came of what its client asked for.

    It never gets wider: what was lost stays lost until the client opens anew, since there would be a gap.
    Where the client named no workspaces or no kinds, it gets those of the scope.

    Raises:
        PermissionDenied: nothing is left, or a kind that the client named is not allowed.
        LimitExceeded: the scope has too many workspaces to stand for all of them.
    """
    kinds, workspaces = current.kinds, current.workspaces
    if scope.kinds is not None:
        denied = sorted(asked.kinds - scope.kinds)
        if denied:
            raise PermissionDenied(f"the caller may not see the kind {denied[0]!r}")
        kinds = kinds & scope.kinds if kinds else scope.kinds
        if not kinds:
            raise PermissionDenied("the caller may not see any of these kinds")
    if scope.workspaces is not None:
        workspaces = workspaces & scope.workspaces if workspaces else scope.workspaces
        if not workspaces:
            raise PermissionDenied("the caller may not see any of these workspaces")
    if (kinds, workspaces) == (current.kinds, current.workspaces):
        return current
    result = replace(current, kinds=kinds, workspaces=workspaces)
    check_size(result)
    return result
