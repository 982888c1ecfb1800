"""What the command line says and how it ends.

Data goes to standard output, everything meant for a person to standard error. An error is
one line with its cause and its mend; a traceback is shown only with ``ZEPHYR_DEBUG=1``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop
from rich.console import Console
from rich.text import Text

T = TypeVar("T")

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

console = Console(stderr=True, highlight=False, soft_wrap=True)
output = Console(highlight=False, soft_wrap=True)


class CommandError(Exception):
    """A command cannot go on: one sentence for the cause, one for the mend."""

    def __init__(self, message: str, mend: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.exit_code = exit_code


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine on uvloop; errors are left to ``guarded``."""
    return uvloop.run(main)


def show_error(message: str, mend: str = "") -> None:
    """Prints ``error: cause; mend`` in one line."""
    text = Text("error: ", style="bold red")
    text.append(message, style="default")
    if mend:
        text.append(" — " + mend, style="yellow")
    console.print(text)


def exit_code_of(error: BaseException) -> int:
    """Shows an error and gives the exit code to end with. An exception group counts as its first member.

    Raises:
        BaseException: ``error`` itself, when it is not one that a user can mend.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    exit_code = getattr(error, "exit_code", None)
    message = getattr(error, "message", None)
    if not isinstance(exit_code, int) or not isinstance(message, str):
        raise error
    if os.environ.get("ZEPHYR_DEBUG"):
        console.print_exception()
    show_error(message, str(getattr(error, "mend", "")))
    return exit_code


def leave_broken_pipe() -> None:
    """After a ``BrokenPipeError`` of standard output: nothing more is written to it, at exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_line(text: str) -> None:
    """One line of data, as it is."""
    sys.stdout.write(text + "\n")


def flush_output() -> None:
    """Hands over what was printed, so that a reader of a pipe sees each event at once."""
    sys.stdout.flush()
