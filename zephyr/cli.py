"""The ``zephyr`` command: its parts put together, and how each of them ends.

Exit codes: 0 fine · 1 what was to be proven does not hold, or another error · 2 wrong usage
or setting · 3 a server cannot be reached · 4 a server or the stream is not set up as
needed · 5 the slot is held by another bridge · 6 the epoch is lost · 7 a row cannot become
an event · 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as package_version
from typing import Annotated

import typer

from zephyr.console import EXIT_BROKEN_PIPE, exit_code_of, leave_broken_pipe, output, show_error

# In the order of the help; each is a module of ``zephyr.commands`` with an ``app``, or a function of that name.
COMMANDS = (
    *(
        "up",
        "down",
        "serve",
        "bridge",
        "migrate",
        "tail",
        "publish",
        "demo",
        "verify",
        "health",
        "bench",
        "doctor",
    ),
    "accelerator",
)


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """The command line, with the command alone that the words name; with all of them, if they name none.

    A process is there for one command: what only others import would make it start twice as slowly.
    """
    app = typer.Typer(
        name="zephyr",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 fine, 1 does not hold, 2 usage or setting, 3 a server is away, 4 a server is not set up,"
        " 5 slot held by another, 6 epoch lost, 7 a row cannot become an event, 130 interrupted.",
    )
    app.callback()(zephyr)
    named = next((word for word in words if not word.startswith("-")), "")
    for name in [named] if named in COMMANDS else COMMANDS:
        module = import_module(f"zephyr.commands.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command()(getattr(module, name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(f"zephyr {package_version('zephyr-realtime')}")
        raise typer.Exit


def zephyr(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """What was committed in Postgres, typed and in order, on gRPC streams."""


def main() -> None:
    """Runs the command line and exits."""
    try:
        code = command_line(sys.argv[1:])(standalone_mode=False)
    except BaseException as exc:
        if isinstance(exc, SystemExit):
            raise
        code = _end(exc)
    sys.exit(code if isinstance(code, int) else 0)


def _end(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has seen enough (``zephyr tail | head``).
        leave_broken_pipe()
        return EXIT_BROKEN_PIPE
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "zephyr"
        show_error(str(usage()), f"see: {command} --help")
        return int(getattr(error, "exit_code", 2))
    return exit_code_of(error)
