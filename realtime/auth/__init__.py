"""Who calls, and what they may see: one interface, whose default allows all.

    policy.py       what an operator implements: authenticate, scope, version, watch
    scope.py        what is left of a filter under a scope; nothing here waits
    checks.py       asking a policy: bounded in time, its faults translated
    read_access.py  the same for the calls that are answered at once

The streams ask it in ``services/access.py``. What a policy does wrong ends what it was asked
about, and nothing else.
"""

from realtime.auth.policy import AllowAll, Caller, Policy, Scope

__all__ = ["AllowAll", "Caller", "Policy", "Scope"]
