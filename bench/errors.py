"""The harness' one error."""

from __future__ import annotations


class BenchError(Exception):
    """A figure cannot be taken: one sentence for the cause, one for the mend."""

    def __init__(self, message: str, mend: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.exit_code = exit_code
