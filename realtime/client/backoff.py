"""How long to wait before the next try: full jitter over an exponentially growing span.

Source: "Exponential Backoff And Jitter" (AWS Architecture Blog): of the kinds measured
there it makes the fewest calls when many clients come back at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Spans grow from ``base_s`` to ``cap_s``; ``reset`` when a try was worth it."""

    def __init__(
        self,
        base_s: float = 0.1,
        cap_s: float = 10.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._uniform = uniform
        self._span_s = base_s

    def next_s(self) -> float:
        """How long to wait now."""
        span_s, self._span_s = self._span_s, min(self._span_s * 2, self._cap_s)
        return self._uniform(0, span_s)

    def reset(self) -> None:
        self._span_s = self._base_s
