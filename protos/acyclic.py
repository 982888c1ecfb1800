"""A word to the compiler: objects of a class are never a part of a reference cycle.

A compiled class that says so is not looked at by the garbage collector: tens of thousands of
values stand in the ring, and each would be visited again and again. Only for values that
refer to nothing but values. Interpreted, it says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Known to the compiler by its own name; at run time nothing of it is needed.
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_):
        return lambda each: each


__all__ = ["mypyc_attr"]
