"""The policy that ``ZEPHYR_POLICY`` names."""

from __future__ import annotations

import importlib

from realtime.auth.policy import AllowAll, Policy
from realtime.errors import SettingInvalid

_METHODS = ("authenticate", "scope", "publish", "version", "watch")


def load_policy(name: str) -> Policy:
    """Imports ``package.module:name`` and calls it without arguments; the empty name allows all.

    Raises:
        SettingInvalid: it cannot be imported, or what it gives is no policy.
    """
    if not name:
        return AllowAll()
    module, _, attribute = name.partition(":")
    try:
        policy: Policy = getattr(importlib.import_module(module), attribute)()
    except Exception as exc:
        raise SettingInvalid(
            f"ZEPHYR_POLICY: {name!r} gives no policy: {exc or type(exc).__name__}",
            "write package.module:name of what gives one when it is called",
        ) from exc
    missing = [method for method in _METHODS if not callable(getattr(policy, method, None))]
    if missing:
        raise SettingInvalid(
            f"ZEPHYR_POLICY: what {name!r} gives has no {missing[0]}()", "see realtime.auth.Policy"
        )
    return policy
